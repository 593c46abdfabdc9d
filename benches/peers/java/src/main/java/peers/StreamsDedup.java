package peers;

import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;
import org.apache.kafka.streams.state.WindowStoreIterator;

/** Kafka Streams, exactly once: the ids of a header in a persistent window store with its changelog. */
public final class StreamsDedup {
    private static final String STORE = "seen";

    private StreamsDedup() {}

    public static void main(String[] arguments) throws InterruptedException {
        Settings settings = Settings.of(arguments);
        KafkaStreams streams = new KafkaStreams(topology(settings), properties(settings));
        CountDownLatch failed = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            failed.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(30))));
        streams.start();
        failed.await();
        System.exit(1);
    }

    private static Topology topology(Settings settings) {
        Duration window = Duration.ofHours(settings.number("window.hours"));
        // As it comes: three segments of RocksDB, a changelog, no cache in front, as no id is written twice.
        var store = Stores.persistentWindowStore(STORE, window, window, false);
        var bytes = Serdes.ByteArray();
        // The keys' partitioner, which is the producers' too, leaves a record in its partition.
        return new Topology()
                .addSource("input", bytes.deserializer(), bytes.deserializer(), settings.text("input"))
                .addProcessor("dedup", () -> new Dedup(window.toMillis()), "input")
                .addStateStore(Stores.windowStoreBuilder(store, Serdes.Bytes(), Serdes.Long()), "dedup")
                .addSink("output", settings.text("output"), bytes.serializer(), bytes.serializer(), "dedup");
    }

    private static Properties properties(Settings settings) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, settings.text("group"));
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, settings.text("bootstrap"));
        properties.put(StreamsConfig.STATE_DIR_CONFIG, settings.text("state"));
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, settings.text("interval.ms"));
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, settings.text("threads"));
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        properties.put(
                StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), settings.text("compression"));
        return properties;
    }

    /** Asks the window for the id, and forwards what it does not hold. */
    private static final class Dedup implements Processor<byte[], byte[], byte[], byte[]> {
        private final long windowMs;
        private ProcessorContext<byte[], byte[]> context;
        private WindowStore<Bytes, Long> seen;

        Dedup(long windowMs) {
            this.windowMs = windowMs;
        }

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
            seen = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            Bytes id = Bytes.wrap(record.headers().lastHeader("message-id").value());
            long time = record.timestamp();
            try (WindowStoreIterator<Long> found = seen.fetch(id, time - windowMs, time)) {
                if (found.hasNext()) {
                    return;
                }
            }
            seen.put(id, time, time);
            context.forward(record);
        }
    }
}

package peers;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The plain clients of Kafka with transactions, and the ids in a map in memory: nothing is kept over a restart, and
 * nothing is forgotten. One thread, one member of the group.
 */
public final class ClientDedup {
    private ClientDedup() {}

    public static void main(String[] arguments) {
        Settings settings = Settings.of(arguments);
        Thread main = Thread.currentThread();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(settings);
                KafkaProducer<byte[], byte[]> producer = producer(settings)) {
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                consumer.wakeup();
                try {
                    main.join();
                } catch (InterruptedException interrupted) {
                    Thread.currentThread().interrupt();
                }
            }));
            run(settings, consumer, producer);
        } catch (WakeupException asked) {
            // It was asked to end; what was open is aborted with the producer.
        }
    }

    private static void run(
            Settings settings, KafkaConsumer<byte[], byte[]> consumer, KafkaProducer<byte[], byte[]> producer) {
        String output = settings.text("output");
        long intervalNs = Duration.ofMillis(settings.number("interval.ms")).toNanos();
        long most = settings.number("transaction.records");
        Map<String, Long> seen = new HashMap<>();
        Map<TopicPartition, OffsetAndMetadata> read = new HashMap<>();
        long begun = 0;
        long records = 0;
        producer.initTransactions();
        consumer.subscribe(List.of(settings.text("input")));
        while (true) {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(10))) {
                if (records == 0) {
                    producer.beginTransaction();
                    begun = System.nanoTime();
                }
                records++;
                byte[] id = record.headers().lastHeader("message-id").value();
                if (seen.putIfAbsent(new String(id, StandardCharsets.ISO_8859_1), record.timestamp()) == null) {
                    producer.send(new ProducerRecord<>(
                            output, record.partition(), record.timestamp(), record.key(), record.value(),
                            record.headers()));
                }
                read.put(
                        new TopicPartition(record.topic(), record.partition()),
                        new OffsetAndMetadata(record.offset() + 1));
            }
            if (records >= most || records > 0 && System.nanoTime() - begun >= intervalNs) {
                producer.sendOffsetsToTransaction(read, consumer.groupMetadata());
                producer.commitTransaction();
                read.clear();
                records = 0;
            }
        }
    }

    private static KafkaConsumer<byte[], byte[]> consumer(Settings settings) {
        return new KafkaConsumer<>(
                Map.of(
                        ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, settings.text("bootstrap"),
                        ConsumerConfig.GROUP_ID_CONFIG, settings.text("group"),
                        ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false,
                        ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed",
                        ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
                        // Kafka Streams' own default for its consumers is twice the client's.
                        ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 1000),
                new ByteArrayDeserializer(),
                new ByteArrayDeserializer());
    }

    private static KafkaProducer<byte[], byte[]> producer(Settings settings) {
        return new KafkaProducer<>(
                Map.of(
                        ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, settings.text("bootstrap"),
                        ProducerConfig.TRANSACTIONAL_ID_CONFIG, settings.text("group"),
                        ProducerConfig.COMPRESSION_TYPE_CONFIG, settings.text("compression")),
                new ByteArraySerializer(),
                new ByteArraySerializer());
    }
}

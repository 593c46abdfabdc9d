import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import org.apache.kafka.common.utils.Utils;

/** Prints what Kafka's Java client hashes keys to: text, random and high bytes, 0 to 40 long. */
public class Murmur2 {
  public static void main(String[] args) {
    Random random = new Random(42);
    List<byte[]> keys = new ArrayList<>();
    for (int length = 0; length <= 40; length++) {
      byte[] text = new byte[length];
      for (int i = 0; i < length; i++) text[i] = (byte) ('a' + i % 26);
      keys.add(text);
      byte[] binary = new byte[length];
      random.nextBytes(binary);
      keys.add(binary);
      byte[] high = new byte[length];
      Arrays.fill(high, (byte) (128 + length));
      keys.add(high);
    }
    System.out.println("# hex key, murmur2, partition of 7. Regenerate (Java 17, kafka-clients and slf4j-api jars in LIBS):"
        + " java -cp 'LIBS/*' tests/data/Murmur2.java > tests/data/murmur2.csv");
    for (byte[] key : keys) {
      int hash = Utils.murmur2(key);
      System.out.println(HexFormat.of().formatHex(key) + "," + hash + "," + Utils.toPositive(hash) % 7);
    }
  }
}

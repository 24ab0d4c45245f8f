// The pairs that hold, from the topic `duplicates` alone. The rules: docs/using.md.
// mvn dependency:copy-dependencies && java -cp 'target/dependency/*' Duplicates.java 127.0.0.1:9092 facematch [--once]
// With --once it prints the pairs at the topic's end and stops; else what counts under a key when something was said.
import com.fasterxml.jackson.databind.*;
import java.math.BigInteger;
import java.time.*;
import java.util.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

public class Duplicates {
    record Word(BigInteger revisions, Instant time, String kind, String key, JsonNode event) {}
    public static void main(String[] args) throws Exception {
        var order = Comparator.comparing(Word::revisions).thenComparing(Word::time);
        var latest = new HashMap<String, Word>(); // what counts under each key
        var config = Map.<String, Object>of("bootstrap.servers", args[0], "auto.offset.reset", "earliest");
        var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
        var infos = consumer.partitionsFor(args[1] + ".duplicates").stream();
        var partitions = infos.map(info -> new TopicPartition(info.topic(), info.partition())).toList();
        consumer.assign(partitions); // no group shares them, and no offset is committed
        while (args.length < 3 || partitions.stream().anyMatch(one -> consumer.currentLag(one).orElse(1) > 0))
            for (var record : consumer.poll(Duration.ofSeconds(1))) {
                var kind = new String(record.headers().lastHeader("ce_type").value());
                var time = OffsetDateTime.parse(new String(record.headers().lastHeader("ce_time").value()));
                if (record.value() == null) latest.remove(record.key()); // someone was erased: forget
                else if (List.of("DuplicateFound", "DuplicateRetracted", "IndividualChecked").contains(kind)) {
                    var event = new ObjectMapper().readTree(record.value());
                    var all = event.findValues("revision").stream().map(JsonNode::bigIntegerValue); // two or one
                    var word = new Word(all.reduce(BigInteger::add).get(), time.toInstant(), kind, record.key(), event);
                    latest.merge(word.key, word, (known, said) -> order.compare(said, known) > 0 ? said : known);
                }
                if (args.length < 3) System.out.println(kind + " " + record.key() + " " + latest.get(record.key()));
            }
        latest.values().removeIf(word -> !word.kind.equals("DuplicateFound"));
        latest.values().stream().map(word -> String.join("\t", word.event.at("/collection").asText(), word.key,
            word.event.at("/a/individual_id").asText(), word.event.at("/b/individual_id").asText(),
            word.event.at("/distance").asText())).sorted().forEach(System.out::println);
    }
}

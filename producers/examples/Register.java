// Registers an individual. Exits with status 0 only if Kafka has acknowledged it. With the jars of
// consumers/examples/pom.xml: java -cp 'target/dependency/*' Register.java 127.0.0.1:9092 facematch camp-a A-1001 1
// https://example.org/1.jpg
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Instant;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class Register {
    public static void main(String[] args) throws Exception {
        String namespace = args[1], collection = args[2], individual = args[3], photo = args[5];
        var config = Map.<String, Object>of("bootstrap.servers", args[0], "enable.idempotence", true, "acks", "all");
        var event = Map.of("collection", collection, "individual_id", individual,
            "revision", Long.parseLong(args[4]), "photo", Map.of("uri", photo));
        var headers = Map.of("ce_specversion", "1.0", "ce_type", "IndividualCreated",
            "ce_id", UUID.randomUUID().toString(), "ce_source", "registration/" + collection,
            "ce_time", Instant.now().toString());
        // No partition is given: the client's own rule keeps all records of one key in one partition.
        var record = new ProducerRecord<>(namespace + ".individuals", collection + "/" + individual,
            new ObjectMapper().writeValueAsString(event));
        headers.forEach((name, value) -> record.headers().add(name, value.getBytes()));
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            producer.send(record).get(); // throws, and so ends with status 1, where it is not acknowledged
        }
    }
}

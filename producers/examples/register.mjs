// Registers an individual. Exits with status 0 only if Kafka has acknowledged it. With Node 22.22 or newer:
// npm install @platformatic/kafka
// node register.mjs 127.0.0.1:9092 facematch camp-a A-1001 1 https://example.org/1.jpg
import { compatibilityPartitioner, Producer, stringSerializers } from '@platformatic/kafka'
import { randomUUID } from 'node:crypto'

const [servers, namespace, collection, individual, revision, photo] = process.argv.slice(2)
const producer = new Producer({
  clientId: 'register',
  bootstrapBrokers: servers.split(','),
  serializers: stringSerializers,
  idempotent: true,
  acks: -1, // of all replicas
  partitioner: compatibilityPartitioner // as Java's clients do it: all records of an individual are in one partition
})
const headers = {
  ce_specversion: '1.0',
  ce_type: 'IndividualCreated',
  ce_id: randomUUID(),
  ce_source: `registration/${collection}`,
  ce_time: new Date().toISOString()
}
// A JavaScript number would lose digits of a revision beyond 2^53.
const event = { collection, individual_id: individual, revision: JSON.rawJSON(revision), photo: { uri: photo } }
const message = {
  topic: `${namespace}.individuals`,
  key: `${collection}/${individual}`,
  value: JSON.stringify(event),
  headers
}
await producer.send({ messages: [message] }) // throws, and so ends with status 1, where it is not acknowledged
await producer.close()

// The pairs that hold, from the topic `duplicates` alone. The rules: docs/using.md.
// npm ci && node duplicates.mjs 127.0.0.1:9092 facematch [--once]    (Node 22.22 or newer)
// With --once it prints the pairs at the topic's end and stops; else what counts under a key when something was said.
import { Consumer, stringDeserializers } from '@platformatic/kafka'
import { randomUUID } from 'node:crypto'

const [servers, namespace, once] = process.argv.slice(2)
const topic = `${namespace}.duplicates`
// A JavaScript number loses digits of a revision, a Date the microseconds.
const exactly = (name, value, { source }) => (name === 'revision' ? BigInt(source) : value)
const micros = time => BigInt(Date.parse(time) * 1000) + BigInt((/\.\d{3}(\d{1,3})/.exec(time)?.[1] ?? '').padEnd(3, 0))
const common = { clientId: 'duplicates', bootstrapBrokers: servers.split(','), deserializers: stringDeserializers }
const consumer = new Consumer({ ...common, groupId: randomUUID() }) // whose every partition is this one's
const offsets = async timestamp => (await consumer.listOffsets({ topics: [topic], timestamp })).get(topic)
const [begins, ends] = [await offsets(-2n), await offsets(-1n)]
const unread = new Set(ends.keys().filter(partition => begins[partition] < ends[partition]))
const latest = new Map() // what counts under each key
const options = { topics: [topic], mode: 'earliest', autocommit: false }
const messages = once && !unread.size ? [] : await consumer.consume(options)
for await (const { key, value, headers, partition, offset } of messages) {
  const kind = headers.get('ce_type')
  const time = micros(headers.get('ce_time'))
  if (value == null) latest.delete(key) // someone was erased: forget
  else if (['DuplicateFound', 'DuplicateRetracted', 'IndividualChecked'].includes(kind)) {
    const event = JSON.parse(value, exactly)
    const revisions = event.revision ?? event.a.revision + event.b.revision
    const known = latest.get(key)
    const later = !known || revisions > known.revisions || (revisions === known.revisions && time > known.time)
    if (later) latest.set(key, { revisions, time, kind, event })
  }
  if (!once) console.log(kind, key, latest.get(key))
  if (offset + 1n >= ends[partition]) unread.delete(partition)
  if (once && !unread.size) break
}
await consumer.close()
const found = [...latest].filter(([, { kind }]) => kind === 'DuplicateFound')
const rows = found.map(([key, { event: e }]) => [e.collection, key, e.a.individual_id, e.b.individual_id, e.distance])
for (const line of rows.map(row => row.join('\t')).sort()) console.log(line)

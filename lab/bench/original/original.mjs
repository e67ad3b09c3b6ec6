// A stand-in for the TypeScript original, which does the same work in the same way, without what else it does: a request is one
// transaction of four round trips, and a batch is sent ten entries at a time, each call awaited.
//
// original.mjs api: answers POST on the socket at descriptor 4. DATABASE_URL is the database.
// original.mjs consumer REPEATS: reads a Kinesis batch as Lambda gives it from the standard input, sends it to the bus at BUS_URL once, to
// warm up, and then REPEATS times. Prints how many events a second that was.

import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import { EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge'
import pg from 'pg'

function api() {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 1 })
  const server = createServer(async (request, response) => {
    try {
      const id = await create(pool, JSON.parse(await text(request)))
      const answer = JSON.stringify({ id })
      response.writeHead(201, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(answer) }).end(answer)
    } catch (error) {
      console.error(error)
      response.writeHead(500, { 'Content-Length': 0 }).end()
    }
  })
  server.listen({ fd: 4 })
  process.on('SIGTERM', () => process.exit(0))
}

async function create(pool, car) {
  const id = randomUUID()
  const createdAt = new Date()
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    await client.query('INSERT INTO cars (id, make, model, year, color, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6)', [
      id, car.make, car.model, car.year, car.color, createdAt,
    ])
    await client.query(
      `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, event_type, event_data) VALUES ($1, 'Car', $2, 1, 'CarCreated', $3)`,
      [randomUUID(), id, { carId: id, ...car, createdAt }],
    )
    await client.query('COMMIT')
    return id
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  } finally {
    client.release()
  }
}

async function consumer(repeats) {
  const { Records: records } = JSON.parse(await text(process.stdin))
  const bus = new EventBridgeClient({
    endpoint: process.env.BUS_URL, region: 'us-east-1', credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
  })
  await publish(bus, records)
  const started = performance.now()
  for (let i = 0; i < repeats; i++) await publish(bus, records)
  console.log((repeats * records.length * 1000) / (performance.now() - started))
  process.exit(0) // the connections are still open
}

async function publish(bus, records) {
  for (let i = 0; i < records.length; i += 10) {
    const answer = await bus.send(new PutEventsCommand({ Entries: records.slice(i, i + 10).map(entry) }))
    if (answer.FailedEntryCount) throw new Error(`${answer.FailedEntryCount} entries failed`)
  }
}

function entry(record) {
  const { data: row } = JSON.parse(Buffer.from(record.kinesis.data, 'base64').toString())
  return {
    EventBusName: 'bench',
    Source: `outbox.${row.aggregate_type.toLowerCase()}`,
    DetailType: row.event_type,
    Time: new Date(row.created_at),
    Detail: JSON.stringify({
      aggregateId: row.aggregate_id, aggregateType: row.aggregate_type, aggregateVersion: row.aggregate_version, eventId: row.id,
      eventData: JSON.parse(row.event_data), timestamp: row.created_at, traceparent: row.traceparent,
    }),
  }
}

const [what, repeats] = process.argv.slice(2)
if (what === 'api') api()
else await consumer(Number(repeats))

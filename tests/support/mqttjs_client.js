// Subscribes, publishes at every QoS, receives what it published, disconnects; says "ok".
const assert = require("assert");
const { once } = require("events");
const { readFileSync } = require("fs");
const mqtt = require("mqtt");

const [port, version, transport, ca, topic] = process.argv.slice(2);
const scheme = { tcp: "mqtt", tls: "mqtts", ws: "ws", wss: "wss" }[transport];

async function run() {
  const client = mqtt.connect(`${scheme}://localhost:${port}/mqtt`, {
    ca: readFileSync(ca),
    clientId: `mqttjs-${version}-${transport}`,
    protocolVersion: Number(version),
    reconnectPeriod: 0,
    connectTimeout: 20000,
  });
  await once(client, "connect");
  const [granted] = await client.subscribeAsync(topic, { qos: 2 });
  assert.strictEqual(granted.qos, 2);
  const properties = version === "5" ? { userProperties: { unit: ["mm", "cm"] } } : undefined;
  for (const qos of [0, 1, 2]) {
    const received = once(client, "message");
    await client.publishAsync(topic, `qos ${qos}`, { qos, properties });
    const [, payload, packet] = await received;
    assert.deepStrictEqual([payload.toString(), packet.qos], [`qos ${qos}`, qos]);
    if (properties) assert.deepStrictEqual([...packet.properties.userProperties.unit], ["mm", "cm"]);
  }
  await client.endAsync();
  console.log("ok");
}

setTimeout(() => process.exit(1), 30000).unref();
run().catch((error) => {
  console.error(error);
  process.exit(1);
});

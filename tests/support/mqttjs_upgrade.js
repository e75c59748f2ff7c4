// Connects over WebSocket with headers of its own, publishes once and says "ok".
const { once } = require("events");
const mqtt = require("mqtt");

const [url, headers, topic] = process.argv.slice(2);

async function run() {
  const client = mqtt.connect(url, {
    clientId: "browser",
    protocolVersion: 5,
    reconnectPeriod: 0,
    connectTimeout: 20000,
    wsOptions: { headers: JSON.parse(headers) },
  });
  await Promise.race([
    once(client, "connect"),
    once(client, "close").then(() => Promise.reject(new Error("closed"))),
  ]);
  await client.publishAsync(topic, "from a browser", { qos: 1 });
  await client.endAsync();
  console.log("ok");
}

setTimeout(() => process.exit(1), 30000).unref();
run().catch((error) => {
  console.error(error.message);
  process.exit(1);
});

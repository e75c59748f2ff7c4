// Connects over WebSocket with headers of its own, over TLS with a certificate, publishes once and says "ok".
const { once } = require("events");
const { readFileSync } = require("fs");
const mqtt = require("mqtt");

const [url, headers, topic, ...files] = process.argv.slice(2);
const [ca, cert, key] = files.map((file) => readFileSync(file));

async function run() {
  const client = mqtt.connect(url, {
    clientId: "browser",
    protocolVersion: 5,
    reconnectPeriod: 0,
    connectTimeout: 20000,
    wsOptions: { headers: JSON.parse(headers), ca, cert, key },
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

// What a page does for the tests in a real browser: it takes steps from its server, and says how each went.
//   fetch URL OPTIONS                    status and body
//   protocol URL                         by which protocol that was fetched
//   socket URL MESSAGE...                sends each when the one before came back, then closes with 4000
//   mqtt URL VERSION TOPIC SECRET        subscribes to both topics, publishes to the first one
const verbs = {
  async fetch(url, options) {
    const response = await fetch(url, options);
    return `${response.status} ${await response.text()}`;
  },

  protocol: (url) =>
    new Promise((resolve) => {
      const look = (list) => list.getEntriesByName(url).forEach((entry) => resolve(entry.nextHopProtocol));
      new PerformanceObserver(look).observe({ type: "resource", buffered: true });
    }),

  socket: (url, ...messages) =>
    new Promise((resolve) => {
      const socket = new WebSocket(url);
      const said = [];
      const next = () => (messages.length ? socket.send(messages.shift()) : socket.close(4000));
      socket.onopen = () => {
        said.push("open");
        next();
      };
      socket.onmessage = ({ data }) => {
        said.push(data);
        next();
      };
      socket.onclose = ({ code }) => resolve([...said, code].join(" "));
    }),

  async mqtt(url, protocolVersion, topic, secret) {
    const client = await mqtt.connectAsync(url, { protocolVersion, reconnectPeriod: 0 }, false);
    const subscribe = (filter) =>
      new Promise((resolve) => client.subscribe(filter, { qos: 1 }, (error, _, packet) => resolve(packet.granted)));
    const codes = [await subscribe(topic), await subscribe(secret)];
    const received = new Promise((resolve) => client.once("message", (_, payload) => resolve(payload)));
    await client.publishAsync(topic, "hello", { qos: 1 });
    const said = [...codes, await received].join(" ");
    await client.endAsync();
    return said;
  },
};

const say = (body) => fetch("/said", { method: "POST", body });

async function run() {
  for (const [verb, ...rest] of await (await fetch("/steps")).json()) {
    await say(await verbs[verb](...rest).catch((error) => `failed ${error.message}`));
  }
}

run().catch((error) => say(`failed ${error.stack}`));

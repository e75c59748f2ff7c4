// aedes on a free port of loopback, over TCP or WebSocket; says which port.
const { Aedes } = require("aedes");
const http = require("http");
const net = require("net");
const { WebSocketServer, createWebSocketStream } = require("ws");

function serve(broker) {
  if (process.argv[2] === "tcp") return net.createServer(broker.handle);
  const server = http.createServer();
  const sockets = new WebSocketServer({ server, path: "/mqtt" });
  sockets.on("connection", (socket, request) => broker.handle(createWebSocketStream(socket), request));
  return server;
}

Aedes.createBroker().then((broker) => {
  const server = serve(broker);
  server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
});

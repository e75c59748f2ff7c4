// Peers of WebSocket from the Node world, which say line by line what happens to them.
//   server                    echoes on a free port of loopback; "close" has it close with 4001
//   client KIND URL PROTOCOL MESSAGE...   sends each when the one before came back, then closes with 4000
//     KIND: `ws`, or `browser` for the client that is built into Node as into browsers
//   http2 URL CA MESSAGE...   the same by extended CONNECT; "stay" has it wait for the other side
const http2 = require("http2");
const fs = require("fs");
const { randomBytes } = require("crypto");

const say = (...words) => console.log(...words);

function serve() {
  const { WebSocketServer } = require("ws");
  const handleProtocols = (offered) => (offered.has("chat") ? "chat" : false);
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: true, handleProtocols });
  server.on("listening", () => say(`listening ${server.address().port}`));
  server.on("connection", (socket, request) => {
    say("open", request.url, JSON.stringify(request.headers));
    socket.on("message", (data, isBinary) => {
      say("message", isBinary ? "binary" : "text", data.length, data.toString("utf8", 0, 40));
      if (data.toString() === "close") socket.close(4001, "as you wish");
      else socket.send(data, { binary: isBinary });
    });
    socket.on("close", (code, reason) => say("close", code, reason.toString()));
    socket.on("error", () => {});
  });
}

function speak(kind, url, protocol, messages) {
  const Socket = kind === "ws" ? require("ws").WebSocket : WebSocket;
  const socket = new Socket(url, protocol ? protocol.split(",") : []);
  socket.binaryType = "arraybuffer";
  const next = () => (messages.length ? socket.send(payload(messages.shift())) : socket.close(4000, "done"));
  socket.onopen = () => {
    say("open", socket.protocol || "-", socket.extensions || "-");
    next();
  };
  socket.onmessage = ({ data }) => {
    const isText = typeof data === "string";
    say("message", isText ? "text" : "binary", isText ? data.slice(0, 40) : data.byteLength);
    next();
  };
  socket.onclose = ({ code, reason }) => say("close", code, reason);
  socket.onerror = () => say("error");
}

/** `#123` is so many bytes. */
const payload = (text) => (text.startsWith("#") ? randomBytes(Number(text.slice(1))) : text);

function speakOverHttp2(url, ca, messages) {
  const { origin, pathname } = new URL(url);
  const session = http2.connect(origin, { ca: fs.readFileSync(ca) });
  session.on("remoteSettings", (settings) => {
    say("settings", settings.enableConnectProtocol);
    const stream = session.request({
      ":method": "CONNECT",
      ":protocol": "websocket",
      ":path": pathname,
      "sec-websocket-version": "13",
      "sec-websocket-protocol": "chat",
    });
    let bytes = Buffer.alloc(0);
    const next = () => {
      const text = messages.shift();
      if (text === "stay") return;
      stream.write(text === undefined ? frame(8, Buffer.from([0x0f, 0xa0])) : frame(1, Buffer.from(text)));
    };
    stream.on("response", (headers) => {
      say("open", headers[":status"], headers["sec-websocket-protocol"] || "-");
      if (headers[":status"] === 200) next();
    });
    stream.on("data", (data) => {
      bytes = Buffer.concat([bytes, data]);
      while (bytes.length >= 2 && bytes.length >= 2 + bytes[1]) {
        const [opcode, body] = [bytes[0] & 15, bytes.subarray(2, 2 + bytes[1])];
        bytes = bytes.subarray(2 + bytes[1]);
        if (opcode === 8) {
          say("close", body.readUInt16BE(0));
          stream.end(frame(8, body.subarray(0, 2)));
        }
        if (opcode === 1) {
          say("message", body.toString());
          next();
        }
      }
    });
    stream.on("end", () => session.close());
    stream.on("error", (error) => say("error", error.message));
  });
}

/** A short frame of a client. */
function frame(opcode, body) {
  const mask = randomBytes(4);
  const masked = body.map((byte, index) => byte ^ mask[index % 4]);
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | body.length]), mask, masked]);
}

const [role, ...rest] = process.argv.slice(2);
if (role === "server") serve();
else if (role === "client") speak(rest[0], rest[1], rest[2], rest.slice(3));
else speakOverHttp2(rest[0], rest[1], rest.slice(2));

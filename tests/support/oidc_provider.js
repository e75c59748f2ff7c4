// An OpenID provider on a port of its own: says in one line where it is and which tokens it has issued.
const { once } = require("events");
const http = require("http");

const SCOPE = "mqtt:publish:a/b/c mqtt:subscribe:a/+/c";
const RESOURCE = "urn:mgate";

async function run() {
  const { default: Provider } = await import(require.resolve("oidc-provider"));
  const server = http.createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const issuer = `http://localhost:${server.address().port}`;
  const resource = { scope: SCOPE, audience: "mgate", accessTokenTTL: 60, accessTokenFormat: "jwt" };
  const client = { response_types: [], redirect_uris: [], grant_types: ["client_credentials"] };
  const provider = new Provider(issuer, {
    clients: [
      { ...client, client_id: "dev-1", client_secret: "of the device", scope: SCOPE },
      { ...client, client_id: "mgate", client_secret: "s: %+&" },
    ],
    scopes: SCOPE.split(" "),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (ctx, caller) => caller.clientId === "mgate" },
      resourceIndicators: { enabled: true, getResourceServerInfo: () => resource },
      revocation: { enabled: true },
    },
  });
  server.on("request", provider.callback());

  const post = async (path, form) => {
    const login = Buffer.from("dev-1:of+the+device").toString("base64");
    const headers = { authorization: `Basic ${login}` };
    return fetch(issuer + path, { method: "POST", headers, body: new URLSearchParams(form) });
  };
  const issue = async (more) => {
    const answer = await post("/token", { grant_type: "client_credentials", scope: SCOPE, ...more });
    return (await answer.json()).access_token;
  };
  const [opaque, revoked, jwt] = [await issue(), await issue(), await issue({ resource: RESOURCE })];
  await post("/token/revocation", { token: revoked });
  console.log(JSON.stringify({ issuer, opaque, revoked, jwt }));
}

run().catch((error) => {
  console.error(error);
  process.exit(1);
});

// Two providers to sign in with, over TLS. The first is real (oidc-provider); the second says what a hostile one, or a hostile network, would say.
import https from "node:https";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, certificate, key, back] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(path.join(modules, name)));
const { Provider } = await load("oidc-provider/lib/index.js");
const jose = await load("jose/dist/webapi/index.js");
const tls = { cert: fs.readFileSync(certificate), key: fs.readFileSync(key) };
const listen = (server) => new Promise((done) => server.listen(0, "127.0.0.1", () => done(server.address().port)));

// --- the real one -------------------------------------------------------------------------------------------------------------------
const groups = { nina: ["dba"], lea: ["dba-leads"], otto: ["sales"], maria: ["dba"] };
const real = https.createServer(tls);
const port = await listen(real);
const provider = new Provider(`https://localhost:${port}`, {
  clients: [{ client_id: "daypass", client_secret: "provider-secret", redirect_uris: [`${back}/sign-in/back`], post_logout_redirect_uris: [`${back}/sign-in`] }],
  pkce: { required: () => true },
  scopes: ["openid", "profile", "groups"],
  claims: { openid: ["sub"], profile: ["preferred_username"], groups: ["groups"] },
  cookies: { keys: ["for tests only"] },
  async findAccount(_context, id) {
    return { accountId: id, claims: async () => ({ sub: `subject-of-${id}`, preferred_username: id, groups: groups[id] ?? [] }) };
  },
});
provider.on("server_error", (_context, error) => console.error(error));
const callback = provider.callback();
real.on("request", (request, response) => {
  // the story takes somebody out of a group
  const leave = request.url.match(/^\/leave\/(\w+)$/);
  if (leave) {
    groups[leave[1]] = [];
    return response.end("left");
  }
  callback(request, response);
});

// --- the hostile one ----------------------------------------------------------------------------------------------------------------
const own = await jose.generateKeyPair("RS256", { extractable: true });
const others = await jose.generateKeyPair("RS256", { extractable: true });
const jwk = { ...(await jose.exportJWK(own.publicKey)), kid: "own", alg: "RS256", use: "sig" };
let wish = "good", nonce = "";
const hostile = https.createServer(tls);
const bad = await listen(hostile);
const issuer = `https://localhost:${bad}`;
const token = async () => {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: issuer, sub: "s-1", aud: "daypass", iat: now, exp: now + 300, auth_time: now, nonce, preferred_username: "nina", groups: ["dba"] };
  if (wish === "nonce") claims.nonce = "another";
  if (wish === "no-nonce") delete claims.nonce;
  if (wish === "stale") claims.auth_time = now - 7200;
  if (wish === "no-auth-time") delete claims.auth_time;
  if (wish === "audience") claims.aud = "another";
  if (wish === "two-audiences") claims.aud = ["daypass", "another"];
  if (wish === "authorized-party") { claims.aud = ["daypass"]; claims.azp = "another"; }
  if (wish === "issuer") claims.iss = "https://login.example.com";
  if (wish === "expired") { claims.iat = now - 7200; claims.exp = now - 3600; }
  if (wish === "name") claims.preferred_username = "ada";
  if (wish === "no-group") claims.groups = ["sales"];
  if (wish === "token-hash") claims.at_hash = "AAAAAAAAAAAAAAAAAAAAAA";
  if (wish === "unsigned") return new jose.UnsecuredJWT(claims).encode();
  const header = { alg: "RS256", kid: "own" };
  if (wish === "public-key-as-secret") {
    const secret = new TextEncoder().encode(await jose.exportSPKI(own.publicKey));
    return new jose.SignJWT(claims).setProtectedHeader({ alg: "HS256", kid: "own" }).sign(secret);
  }
  return new jose.SignJWT(claims).setProtectedHeader(header).sign(wish === "signature" ? others.privateKey : own.privateKey);
};
hostile.on("request", async (request, response) => {
  const url = new URL(request.url, issuer);
  const json = (value) => { response.setHeader("content-type", "application/json"); response.end(JSON.stringify(value)); };
  if (url.pathname.startsWith("/wish/")) {
    wish = url.pathname.slice(6);
    return response.end("so be it");
  }
  if (url.pathname === "/.well-known/openid-configuration") {
    return json({
      issuer, authorization_endpoint: `${issuer}/authorize`, token_endpoint: `${issuer}/token`, jwks_uri: `${issuer}/keys`,
      response_types_supported: ["code"], subject_types_supported: ["public"], id_token_signing_alg_values_supported: ["RS256"],
    });
  }
  if (url.pathname === "/keys") return json({ keys: [jwk] });
  if (url.pathname === "/authorize") {
    nonce = url.searchParams.get("nonce");
    const to = new URL(url.searchParams.get("redirect_uri"));
    to.searchParams.set("code", "a-code");
    to.searchParams.set("state", wish === "state" ? "another" : url.searchParams.get("state"));
    if (wish === "mixed-up") to.searchParams.set("iss", "https://login.example.com");
    response.writeHead(303, { location: to.href });
    return response.end();
  }
  if (url.pathname === "/token" && wish === "redirect") {
    response.writeHead(307, { location: "https://localhost:1/elsewhere" });
    return response.end();
  }
  if (url.pathname === "/token" && wish === "flood") {
    response.writeHead(200, { "content-type": "application/json" });
    const more = () => { while (!response.destroyed && response.write("x".repeat(65536))); };
    response.on("drain", more);
    return more();
  }
  if (url.pathname === "/token") return json({ access_token: "an-access-token", token_type: "Bearer", id_token: await token() });
  response.writeHead(404).end();
});
console.log(JSON.stringify({ real: port, hostile: bad }));

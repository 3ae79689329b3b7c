// One case with node-postgres. As client.py: the first line of standard input says which, READY waits for the next, the last line of output is
// the result.
const fs = require("fs");
const readline = require("readline");
const modules = process.env.MODULES;
const { Client, Pool } = require(`${modules}/pg`);
const Cursor = require(`${modules}/pg-cursor`);
const copy = require(`${modules}/pg-copy-streams`);
const { pipeline } = require("stream/promises");
const { Readable, Writable } = require("stream");

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const SERIES = (count) => `SELECT n, repeat('x', 4000) FROM generate_series(1, ${count}) n`;
const SLEEP = "SELECT pg_sleep(30)";

async function main() {
  const want = JSON.parse((await lines.next()).value);
  const way = {
    host: want.host,
    port: want.port,
    user: want.user,
    password: want.password,
    database: want.database,
    ssl: { ca: fs.readFileSync(want.ca) },
    connectionTimeoutMillis: 15000,
  };
  const open = async () => {
    const client = new Client(way);
    client.on("error", (error) => (client.last ??= error));
    await client.connect();
    return client;
  };
  const ask = async (client, text, values) => Object.values((await client.query({ text, values })).rows[0])[0];
  const orders = (client) => ask(client, "SELECT count(*)::int FROM sales.orders");
  const notes = (client) => ask(client, "SELECT count(*)::int FROM sales.notes WHERE note LIKE 'node-postgres %'");
  const stream = async (count, begun = () => {}) => {
    const cursor = (await open()).query(new Cursor(SERIES(count)));
    let rows = 0;
    let size = 0;
    for (;;) {
      const some = await cursor.read(1000);
      if (!some.length) return `${rows} rows, ${Math.floor(size / 1e6)} MB`;
      if (!rows) begun();
      rows += some.length;
      for (const row of some) size += row.repeat.length;
    }
  };

  const cases = {
    connect: async () => String(await orders(await open())),
    idle: async () => {
      const client = await open();
      await orders(client);
      console.log("READY");
      await lines.next();
      try {
        return String(await orders(client));
      } catch (error) {
        // what it was told between two statements went to its listener
        throw client.last || error;
      }
    },
    midresult: () => stream(100_000_000, () => console.log("READY")),
    large: () => stream(26_400),
    // it has no way of its own: as its documents say, another session does it
    cancel: async () => {
      const [client, other] = [await open(), await open()];
      const running = client.query(SLEEP).then(
        () => "not cancelled",
        (error) => error.message,
      );
      await new Promise((resolve) => setTimeout(resolve, 500));
      await other.query("SELECT pg_cancel_backend($1)", [client.processID]);
      return `${await running}; afterwards: ${await orders(client)}`;
    },
    pid: async () => {
      const client = await open();
      const number = await ask(client, "SELECT pg_backend_pid()");
      if (number !== client.processID) throw new Error(`the driver says ${client.processID}`);
      const said = await cases.cancel();
      if (!said.includes("canceling statement due to user request")) throw new Error(said);
      return "its own, and it stops the session";
    },
    transaction: async () => {
      const client = await open();
      const before = await notes(client);
      for (const [text, end] of [["rolled back", "ROLLBACK"], ["committed", "COMMIT"]]) {
        await client.query("BEGIN");
        await client.query(`INSERT INTO sales.notes (id, note) VALUES (1, 'node-postgres ${text}')`);
        await client.query(end);
      }
      return `${(await notes(client)) - before} row`;
    },
    prepared: async () => {
      const client = await open();
      const text = "SELECT count(*)::int FROM sales.orders WHERE id <= $1 AND customer = $2";
      const found = [];
      for (const most of [40, 80]) {
        const answer = await client.query({ name: "orders", text, values: [most, "Contoso"] });
        found.push(answer.rows[0].count);
      }
      return found.join(", ");
    },
    copy: async () => {
      const client = await open();
      const before = await notes(client);
      const rows = Array.from({ length: 2000 }, (_, n) => `${n}\tnode-postgres ${n}\t${n / 2}\n`);
      await pipeline(Readable.from(rows), client.query(copy.from("COPY sales.notes (id, note, amount) FROM STDIN")));
      let out = 0;
      const counted = new Writable({
        write(chunk, _, done) {
          for (const byte of chunk) if (byte === 10) out += 1;
          done();
        },
      });
      await pipeline(client.query(copy.to("COPY sales.orders TO STDOUT")), counted);
      return `${(await notes(client)) - before} rows in, ${out} rows out`;
    },
    notify: async () => {
      const client = await open();
      const heard = new Promise((resolve) => client.on("notification", (said) => resolve(said.payload)));
      await client.query("LISTEN news");
      await (await open()).query("SELECT pg_notify('news', 'hello')");
      return `heard ${await heard}`;
    },
    // what the connection panel shows, as somebody would paste it
    panel: async () => {
      const client = new Function("Client", "require", `return ${want.text}`)(Client, require);
      await client.connect();
      return String(await orders(client));
    },
    pool: async () => {
      const pool = new Pool({ ...way, max: 4 });
      pool.on("error", () => {});
      const sql = "SELECT pg_backend_pid() AS pid FROM pg_sleep(0.1)";
      const found = await Promise.all(Array.from({ length: 8 }, () => pool.query(sql)));
      const sessions = new Set(found.map((answer) => answer.rows[0].pid));
      if (found.length !== 8 || sessions.size > 4) throw new Error(`${sessions.size} sessions`);
      console.log("READY");
      await lines.next();
      let said = "";
      for (let n = 0; n < 3; n++) {
        said = await pool.query("SELECT 1").then(
          () => "still in",
          (error) => [error.message, error.hint].filter(Boolean).join(" "),
        );
      }
      return `8 answers by 4 sessions; then: ${said}`;
    },
  };

  const begun = Date.now();
  let result;
  try {
    result = { ok: true, text: await cases[want.case]() };
  } catch (error) {
    result = { ok: false, text: [error.message, error.hint].filter(Boolean).join(" ") };
  }
  result.milliseconds = Date.now() - begun;
  console.log(JSON.stringify(result));
  process.exit(0);
}

main();

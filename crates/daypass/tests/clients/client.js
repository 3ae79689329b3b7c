// One case with tedious. As client.py: the first line of standard input says which, READY waits for the next, the last line of
// output is the result.
const fs = require("fs");
const readline = require("readline");
const { Connection, Request, TYPES } = require(process.env.TEDIOUS);

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const SERIES = (count) => `SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, ${count})`;

async function main() {
  const want = JSON.parse((await lines.next()).value);

  const open = () =>
    new Promise((resolve, reject) => {
      const connection = new Connection({
        server: want.host,
        authentication: { type: "default", options: { userName: want.user, password: want.password } },
        options: {
          port: want.port,
          database: want.database || undefined,
          encrypt: want.encrypt || true,
          trustServerCertificate: want.trust,
          cryptoCredentialsDetails: want.trust ? {} : { ca: fs.readFileSync(want.ca) },
          connectTimeout: 15000,
          requestTimeout: 0,
          rowCollectionOnRequestCompletion: false,
        },
      });
      connection.on("error", () => {});
      connection.connect((error) => (error ? reject(error) : resolve(connection)));
    });

  const run = (connection, sql, { parameters = [], onRow = () => {}, started = () => {} } = {}) =>
    new Promise((resolve, reject) => {
      const request = new Request(sql, (error, count) => (error ? reject(error) : resolve(count)));
      for (const [name, type, value] of parameters) request.addParameter(name, type, value);
      request.on("row", onRow);
      started(request);
      if (parameters.length) connection.execSql(request);
      else connection.execSqlBatch(request);
    });

  const one = async (connection, sql, parameters = []) => {
    let value;
    await run(connection, sql, { parameters, onRow: (columns) => (value = Number(columns[0].value)) });
    return value;
  };
  const orders = (connection) => one(connection, "SELECT COUNT(*) FROM sales.orders");
  const notes = (connection) => one(connection, "SELECT COUNT(*) FROM dbo.notes WHERE note LIKE 'tedious %'");
  const promised = (call) => new Promise((resolve, reject) => call((error, value) => (error ? reject(error) : resolve(value))));

  const cases = {
    connect: async () => String(await orders(await open())),
    idle: async () => {
      const connection = await open();
      await orders(connection);
      console.log("READY");
      await lines.next();
      return String(await orders(connection));
    },
    midresult: async () => {
      const connection = await open();
      let count = 0;
      await run(connection, SERIES(100000000), {
        onRow: () => {
          if (count++ === 0) console.log("READY");
        },
      });
      return `${count} rows`;
    },
    cancel: async () => {
      const connection = await open();
      const said = await run(connection, "WAITFOR DELAY '00:00:30'", { started: () => setTimeout(() => connection.cancel(), 500) }).catch((e) => e.message);
      return `${said}; afterwards: ${await orders(connection)}`;
    },
    transaction: async () => {
      const connection = await open();
      const before = await notes(connection);
      await promised((done) => connection.beginTransaction(done));
      await run(connection, "INSERT INTO dbo.notes (id, note) VALUES (1, 'tedious rolled back')");
      await promised((done) => connection.rollbackTransaction(done));
      await promised((done) => connection.beginTransaction(done));
      await run(connection, "INSERT INTO dbo.notes (id, note) VALUES (2, 'tedious committed')");
      await promised((done) => connection.commitTransaction(done));
      return `${(await notes(connection)) - before} row`;
    },
    prepared: async () => {
      const connection = await open();
      const request = new Request("SELECT COUNT(*) FROM sales.orders WHERE id <= @most AND customer = @customer", () => {});
      request.addParameter("most", TYPES.Int);
      request.addParameter("customer", TYPES.NVarChar);
      await new Promise((resolve, reject) => {
        request.once("prepared", resolve);
        request.once("error", reject);
        connection.prepare(request);
      });
      const found = [];
      request.on("row", (columns) => found.push(columns[0].value));
      for (const most of [40, 80]) {
        await new Promise((resolve, reject) => {
          request.userCallback = (error) => (error ? reject(error) : resolve());
          request.callback = request.userCallback;
          connection.execute(request, { most, customer: "Contoso" });
        });
      }
      return found.join(", ");
    },
    large: async () => {
      let [count, size] = [0, 0];
      await run(await open(), SERIES(13200), {
        onRow: (columns) => {
          count += 1;
          size += 2 * columns[1].value.length;
        },
      });
      return `${count} rows, ${Math.floor(size / 1e6)} MB`;
    },
    bulk: async () => {
      const connection = await open();
      const before = await notes(connection);
      const load = await new Promise((resolve, reject) => {
        const bulk = connection.newBulkLoad("dbo.notes", (error) => (error ? reject(error) : resolve(bulk)));
        bulk.addColumn("id", TYPES.Int, { nullable: true });
        bulk.addColumn("note", TYPES.NVarChar, { length: 50, nullable: true });
        bulk.addColumn("amount", TYPES.Float, { nullable: true });
        connection.execBulkLoad(bulk, Array.from({ length: 2000 }, (_, n) => ({ id: n, note: `tedious ${n}`, amount: n / 2 })));
      });
      void load;
      return `${(await notes(connection)) - before} rows`;
    },
  };

  const begun = Date.now();
  let result;
  try {
    result = { ok: true, text: await cases[want.case]() };
  } catch (error) {
    result = { ok: false, text: error.message };
  }
  result.milliseconds = Date.now() - begun;
  console.log(JSON.stringify(result));
  process.exit(0);
}

main();

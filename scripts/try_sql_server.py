"""See scripts/try-sql-server."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

import mssql_python_odbc
import pyodbc

ask = argparse.ArgumentParser(prog="try-sql-server")
ask.add_argument("host")
ask.add_argument("--port", type=int, default=1433)
ask.add_argument("--user", default="sa")
ask.add_argument("--ca")
ask.add_argument("--without-tls", action="store_true")
ask.add_argument("--report", default="try-sql-server.md")
want = ask.parse_args()
if not want.ca and not want.without_tls:
    ask.error("name the CA of the server's certificate with --ca, or say --without-tls")
secret = os.environ.get("SA_PASSWORD") or ask.error("the password of the user is to stand in SA_PASSWORD")
GOLDEN, UAT, ADMIN, PASSWORD = "daypass_try_golden", "daypass_try_uat", "daypass_try_admin", "Daypass-try-9"
folder = pathlib.Path(tempfile.mkdtemp(prefix="daypass-try-"))
steps = []


def step(name):
    """What a function says or raises is a line of the report."""

    def run(doing):
        began = time.time()
        try:
            text, ok = doing(), True
        except Exception as error:  # whatever it is, it belongs into the report
            text, ok = f"{type(error).__name__}: {error}", False
        steps.append((name, ok, str(text or "").strip(), time.time() - began))
        print(f"{'ok  ' if ok else 'FAIL'} {name} ({steps[-1][3]:.1f} s){'' if ok else ': ' + steps[-1][2][:500]}", flush=True)
        return doing

    return run


def driver():
    base = pathlib.Path(mssql_python_odbc.__file__).parent
    return str(next(path for path in base.rglob("libmsodbcsql*.so*") if "debian" in str(path) and platform.machine().replace("aarch64", "arm64") in str(path)))


def odbc(host, port, user, password, database, trusted=True):
    trust = "yes" if trusted else "no"
    text = f"DRIVER={driver()};SERVER=tcp:{host},{port};UID={user};PWD={{{password}}};DATABASE={database};Encrypt=yes;TrustServerCertificate={trust}"
    return pyodbc.connect(text, timeout=15, autocommit=True)


def server(database="master"):
    return odbc(want.host, want.port, want.user, secret, database)


def run(connection, sql):
    for batch in re.split(r"(?im)^\s*GO\s*$", sql):
        if batch.strip():
            cursor = connection.execute(batch)
            while cursor.nextset():
                pass


def daypass(person, *arguments, given="", fails=False):
    done = subprocess.run([os.environ["DAYPASS"], *arguments], input=given, text=True, capture_output=True, env={**os.environ, "DAYPASS_CONFIG_DIR": str(folder / person)})
    if (done.returncode != 0) != fails:
        raise RuntimeError(f"daypass {' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout or done.stderr


def told(person, *arguments):
    return json.loads(daypass(person, "--json", *arguments))


def free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def until(so, seconds=120):
    deadline = time.time() + seconds
    while True:
        value = so()
        if value:
            return value
        if time.time() > deadline:
            raise RuntimeError("it did not come to that in time")
        time.sleep(0.3)


api, gateway = free(), free()


def account(access):
    way = told("maria", "request", "uat", "--access", access, "--life", "1h", "--reason", "scripts/try-sql-server")
    return way["account"], way["password"]


def client(name, case="connect", user="", password=""):
    """A driver of the tests, through the gateway."""
    ca = str(folder / "data/ca.pem")
    said = {"client": name, "case": case, "host": "localhost", "port": gateway, "user": user, "password": password, "database": UAT, "ca": ca, "trust": False}
    said |= {"mars": False, "encrypt": "yes" if name == "odbc" else True, "jar": f"{os.environ['TOOLS']}/mssql-jdbc.jar"}
    program = [sys.executable, "crates/daypass/tests/clients/client.py"]
    done = subprocess.run(program, input=json.dumps(said) + "\n\n", text=True, capture_output=True, env={**os.environ, "SSL_CERT_FILE": ca}, timeout=120)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if not result["ok"]:
        raise RuntimeError(result["text"])
    return result["text"]


def with_account(access, name, case):
    user, password = account(access)
    try:
        return client(name, case, user, password)
    finally:
        daypass("maria", "end", user)


def drop_all():
    link = server()
    for database in [row[0] for row in link.execute("SELECT name FROM sys.databases WHERE name LIKE 'daypass!_try!_%' ESCAPE '!'").fetchall()]:
        state = link.execute("SELECT state_desc FROM sys.databases WHERE name = ?", database).fetchval()
        if state == "OFFLINE":
            run(link, f"ALTER DATABASE [{database}] SET ONLINE")
        run(link, f"ALTER DATABASE [{database}] SET SINGLE_USER WITH ROLLBACK IMMEDIATE; DROP DATABASE [{database}]")
    if link.execute("SELECT name FROM sys.sql_logins WHERE name = ?", ADMIN).fetchone():
        run(link, f"DROP LOGIN [{ADMIN}]")


@step("the server")
def _():
    row = server().execute("SELECT @@VERSION, CAST(SERVERPROPERTY('Edition') AS nvarchar(128)), CAST(SERVERPROPERTY('EngineEdition') AS int)").fetchone()
    return f"{row[0]} {row[1]}, engine edition {row[2]}"


if not steps[-1][1]:
    sys.exit("The server is not reached: nothing else was tried.")
daypass_serve = None
try:

    @step("two databases with content")
    def _():
        drop_all()
        for database in (GOLDEN, UAT):
            run(server(), f"CREATE DATABASE [{database}]")
            inside = server(database)
            run(inside, "CREATE SCHEMA sales\nGO\nCREATE TABLE sales.orders (id int IDENTITY PRIMARY KEY, customer nvarchar(40) NOT NULL, amount float NOT NULL)")
            run(inside, "CREATE TABLE dbo.notes (id bigint, note nvarchar(4000), amount float)")
            for n in range(400):
                inside.execute("INSERT INTO sales.orders (customer, amount) VALUES (?, ?)", "Contoso" if n % 4 == 0 else "Fabrikam", n * 1.5)
        run(server(GOLDEN), "DELETE FROM sales.orders WHERE amount > 9.5")

    @step("the administrator, as the recipe says")
    def _():
        for database in (UAT, GOLDEN):
            text = daypass("ada", "env", "recipe", "--engine", "sqlserver", "--database", database, "--admin", ADMIN).split("-- and a firewall rule")[0]
            if database == GOLDEN:
                text = text[text.index(f"USE [{GOLDEN}]"):].split("GO")[0]
            run(server(), text.replace("choose-one", PASSWORD))

    @step("Daypass starts, with people")
    def _():
        global daypass_serve
        (folder / "daypass.toml").write_text(f'data_dir = "{folder}/data"\n[api]\nlisten = "127.0.0.1:{api}"\n[gateway]\nlisten = "127.0.0.1:{free()}"\nlisten_sqlserver = "127.0.0.1:{gateway}"\n')
        log = open(folder / "daypass.log", "w")
        daypass_serve = subprocess.Popen([os.environ["DAYPASS"], "serve", "--config", str(folder / "daypass.toml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: (folder / "data/first-link").exists())
        way = ("--server", f"https://localhost:{api}", "--ca", str(folder / "data/ca.pem"))
        link = (folder / "data/first-link").read_text()
        until(lambda: socket.create_connection(("127.0.0.1", api)) or True)
        daypass("ada", "first", *way, "--name", "ada", "--stdin", given=f"{link}a-long-password\n")
        for person, role in (("maria", "requester"), ("sam", "manager"), ("vera", "auditor")):
            daypass("ada", "people", "add", person, "--role", role, "--password-stdin", given="a-long-password")
            daypass(person, "login", *way, "--name", person, "--password-stdin", given="a-long-password")

    for name, database in (("uat", UAT), ("golden", GOLDEN)):

        @step(f"daypass env add {name}, tried the whole way")
        def _():
            tls = ("--without-tls",) if want.without_tls else ("--ca", want.ca)
            add = ("env", "add", name, "--engine", "sqlserver", "--host", want.host, "--port", str(want.port), "--database", database, "--admin", ADMIN)
            return daypass("ada", *add, "--password-stdin", *tls, given=PASSWORD)

    @step("daypass env test uat")
    def _():
        return daypass("ada", "env", "test", "uat")

    @step("a read account reads and does not write")
    def _():
        daypass("maria", "allow", "uat")
        user, password = account("read")
        link = odbc("localhost", gateway, user, password, UAT)
        count = link.execute("SELECT COUNT(*) FROM sales.orders").fetchval()
        try:
            link.execute("DELETE FROM sales.orders")
        except pyodbc.Error as error:
            assert "229" in str(error) or "permission was denied" in str(error), error
            assert count == 400, count
            return f"{count} orders; {error}"
        raise RuntimeError("it wrote")

    for name in ("odbc", "python-tds", "mssql-tds", "mssql-jdbc", "sqlclient"):

        @step(f"client {name}: connect")
        def _():
            return with_account("read", name, "connect")

    for name, case in (("odbc", "transaction"), ("odbc", "prepared"), ("odbc", "bulk"), ("mssql-jdbc", "cursor"), ("mssql-jdbc", "huge"), ("mssql-jdbc", "bulk"), ("sqlclient", "bulk")):

        @step(f"client {name}: {case}")
        def _():
            return with_account("read_write", name, case)

    @step("an end in the middle of a result is told, and nothing is left at the server")
    def _():
        user, password = account("read")
        link = odbc("localhost", gateway, user, password, UAT)
        many = "SELECT a.id, REPLICATE('x', 4000) AS filler FROM sales.orders a CROSS JOIN sales.orders b CROSS JOIN sales.orders c"
        if "stand-in" in steps[0][2]:
            # how this script itself is tried: it would have all of them in memory
            many = "SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, 64000000)"
        cursor = link.execute(many)
        threading.Timer(2, lambda: daypass("maria", "end", user)).start()
        began = time.time()
        try:
            while cursor.fetchone():
                pass
        except pyodbc.Error as error:
            said = str(error)
        else:
            raise RuntimeError("it went on to its end")
        gone = "SELECT (SELECT COUNT(*) FROM sys.sql_logins WHERE name = ?) + (SELECT COUNT(*) FROM sys.dm_exec_sessions WHERE original_login_name = ?)"
        until(lambda: server().execute(gone, user, user).fetchval() == 0, 30)
        assert "Your session was ended" in said, said
        return f"after {time.time() - began:.1f} s: {said}"

    @step("the record")
    def _():
        found = 0
        for session in told("maria", "sessions", "ls", "--all"):
            found += len(told("vera", "sessions", "statements", session["id"]))
        assert found > 20, found
        return f"{found} statements"

    for words, orders in ((("refresh", "--from", "golden"), 7), (("undo",), 400)):

        @step(f"daypass move uat {' '.join(words)}")
        def _():
            daypass("sam", "move", "uat", *words, "--reason", "scripts/try-sql-server")
            over = ("Completed", "RollbackCompleted", "Failed", "PreparationFailed", "RollbackFailed")
            done = until(lambda: next((now for now in told("sam", "move", "uat", "status")[:1] if now["status"] in over), None), 600)
            count = server(UAT).execute("SELECT COUNT(*) FROM sales.orders").fetchval()
            alone = server().execute("SELECT name FROM sys.databases WHERE user_access <> 0").fetchall()
            assert count == orders and not alone and "Failed" not in done["status"], (count, alone, done)
            return json.dumps(done, indent=1)

    @step("daypass drift ls")
    def _():
        return daypass("sam", "drift", "ls")

    @step("daypass doctor")
    def _():
        return daypass("ada", "doctor")

    @step("nothing of ours is left when all accounts have ended")
    def _():
        for passing in told("maria", "passes"):
            daypass("maria", "end", passing["account"])
        until(lambda: not server().execute("SELECT name FROM sys.sql_logins WHERE name LIKE 'jit!_%' ESCAPE '!'").fetchall(), 60)

finally:
    if daypass_serve:
        daypass_serve.terminate()
        daypass_serve.wait(60)
    step("the databases and the login are dropped again")(drop_all)
    version = subprocess.run([os.environ["DAYPASS"], "--version"], capture_output=True, text=True).stdout.strip()
    bad = [name for name, ok, *_ in steps if not ok]
    lines = [f"# {version} before {steps[0][2].splitlines()[0]}", "", f"{datetime.datetime.now():%Y-%m-%d %H:%M}, {platform.platform()}; {len(steps) - len(bad)} of {len(steps)} came out right.", ""]
    for name, ok, text, seconds in steps:
        lines += [f"## {'ok' if ok else 'FAILED'}: {name} ({seconds:.1f} s)", "", "```", text[:6_000], "```", ""]
    if bad and (folder / "daypass.log").exists():
        lines += ["## Daypass's log", "", "```", (folder / "daypass.log").read_text()[-20_000:], "```", ""]
    pathlib.Path(want.report).write_text("\n".join(lines))
    print(f"{len(bad)} of {len(steps)} failed. The report is {want.report}; it holds no password. Please send it to us.")
    sys.exit(1 if bad else 0)

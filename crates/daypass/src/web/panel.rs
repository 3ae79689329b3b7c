//! The connection panel: for each tool that people use, what to type where, ready to paste. A password stands only in texts that
//! a tool keeps as it keeps any password; never in a URL or a command line, which others can read.

use super::dto::{Connection, Setting};
use daypass_core::environment::Engine;

/// All settings for one account. `ca` says how the certificate is trusted: a file to name, or none when a public CA signed it.
pub fn settings(engine: Engine, way: &Connection) -> Vec<Setting> {
    match engine {
        Engine::Postgres => postgres(way),
        Engine::SqlServer => sqlserver(way),
    }
}

fn setting(tool: &str, text: String) -> Setting {
    Setting { tool: tool.to_owned(), text, note: None }
}

/// What has to be done once, so that a tool of SQL Server knows Daypass's own CA; none for one that takes it with the connection.
fn trust(tool: &str) -> Option<&'static str> {
    match tool {
        "tedious" => None,
        "ssms" => Some("Once on this machine: certutil -addstore -f Root ca.pem, as administrator; or tick 'Trust server certificate'."),
        "jdbc" => Some("Once for this Java: keytool -importcert -cacerts -noprompt -alias daypass -file ca.pem"),
        "pymssql" => Some("FreeTDS checks the certificate once freetds.conf says: ca file = ca.pem"),
        _ => Some(
            "Once on this machine, so that ca.pem is trusted: on Windows certutil -addstore -f Root ca.pem, as administrator; \
             on Debian copy it to /usr/local/share/ca-certificates/daypass.crt and run update-ca-certificates.",
        ),
    }
}

fn postgres(way: &Connection) -> Vec<Setting> {
    let Connection { account, password, server, port, database, .. } = way;
    let own_ca = !way.ca.is_empty();
    let ca = if own_ca { "ca.pem" } else { "system" };
    let all = vec![
        setting(
            "psql",
            format!("psql {}", shell(&format!("host={server} port={port} dbname={} user={account} sslmode=verify-full sslrootcert={ca}", word(database)))),
        ),
        setting(
            "dbeaver",
            format!(
                "Host: {server}\nPort: {port}\nDatabase: {database}\nUsername: {account}\nPassword: {password}\nSSL: Use SSL, CA certificate {ca}, SSL mode verify-full"
            ),
        ),
        setting(
            "pgadmin",
            format!(
                "Register > Server\nConnection > Host name/address: {server}\nPort: {port}\nMaintenance database: {database}\nUsername: {account}\nPassword: {password}\nParameters > SSL mode: verify-full\nParameters > Root certificate: {ca}"
            ),
        ),
        setting(
            "jdbc",
            format!(
                "URL: jdbc:postgresql://{server}:{port}/{}?sslmode=verify-full&{}\nUser: {account}\nPassword: {password}",
                encoded(database),
                if own_ca { "sslrootcert=ca.pem" } else { "sslfactory=org.postgresql.ssl.DefaultJavaSSLFactory" }
            ),
        ),
        setting(
            "psycopg",
            format!(
                "psycopg.connect(host={}, port={port}, dbname={}, user={}, password={}, sslmode=\"verify-full\", sslrootcert=\"{ca}\")",
                quoted(server),
                quoted(database),
                quoted(account),
                quoted(password)
            ),
        ),
        setting(
            "sqlalchemy",
            format!(
                "create_engine(URL.create(\"postgresql+psycopg\", username={}, password={}, host={}, port={port}, database={}, query={{\"sslmode\": \"verify-full\", \"sslrootcert\": \"{ca}\"}}))",
                quoted(account),
                quoted(password),
                quoted(server),
                quoted(database)
            ),
        ),
        setting(
            "node-postgres",
            format!(
                "new Client({{ host: {}, port: {port}, user: {}, password: {}, database: {}, ssl: {} }})",
                quoted(server),
                quoted(account),
                quoted(password),
                quoted(database),
                if own_ca { "{ ca: require(\"fs\").readFileSync(\"ca.pem\") }" } else { "true" }
            ),
        ),
        setting(
            "go",
            format!(
                "pgx.Connect(ctx, {})",
                quoted(&format!(
                    "host={server} port={port} dbname={} user={account} password={} sslmode=verify-full{}",
                    word(database),
                    word(password),
                    if own_ca { " sslrootcert=ca.pem" } else { "" }
                ))
            ),
        ),
        setting("libpq", format!("postgresql://{}@{server}:{port}/{}?sslmode=verify-full&sslrootcert={ca}", encoded(account), encoded(database))),
    ];
    let since =
        "Clients with libpq before 16 do not know 'system': name the file of the CAs that this machine trusts, on Debian /etc/ssl/certs/ca-certificates.crt";
    all.into_iter().map(|setting| Setting { note: setting.text.contains("system").then(|| since.to_owned()).filter(|_| !own_ca), ..setting }).collect()
}

/// A text in the quotes of Python, JavaScript, Go and JSON.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn sqlserver(way: &Connection) -> Vec<Setting> {
    let Connection { account, password, server, port, database, .. } = way;
    let own_ca = !way.ca.is_empty();
    let file = if own_ca { ", cryptoCredentialsDetails: { ca: require(\"fs\").readFileSync(\"ca.pem\") }" } else { "" };
    let safe = |text: &str| format!("{{{}}}", text.replace('}', "}}"));
    let plain =
        |text: &str| if text.contains([';', '\'', '"', '=']) || text.trim() != text { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() };
    let ado =
        format!("Server=tcp:{server},{port};Database={};User ID={account};Password={password};Encrypt=True;TrustServerCertificate=False", plain(database));
    let all = vec![
        setting(
            "ssms",
            format!(
                "Server name: {server},{port}\nAuthentication: SQL Server Authentication\nLogin: {account}\nPassword: {password}\nEncryption: Mandatory (or Strict)\nOptions > Connection Properties > Connect to database: {database}"
            ),
        ),
        setting(
            "vscode-mssql",
            format!(
                "Azure Data Studio and VS Code (mssql):\n{{ \"server\": {}, \"database\": {}, \"authenticationType\": \"SqlLogin\", \"user\": {}, \"password\": {}, \"encrypt\": \"Mandatory\" }}",
                quoted(&format!("{server},{port}")),
                quoted(database),
                quoted(account),
                quoted(password)
            ),
        ),
        setting("sqlcmd", format!("SQLCMDPASSWORD=... sqlcmd -S tcp:{server},{port} -d {} -U {account} -N", shell(database))),
        setting("ado.net", ado),
        setting("jdbc", format!("jdbc:sqlserver://{server}:{port};databaseName={};user={account};password={};encrypt=true", safe(database), safe(password))),
        setting(
            "odbc",
            format!(
                "Driver={{ODBC Driver 18 for SQL Server}};Server=tcp:{server},{port};Database={};UID={account};PWD={};Encrypt=yes",
                safe(database),
                safe(password)
            ),
        ),
        setting(
            "pymssql",
            format!(
                "pymssql.connect(server={}, port={port}, user={}, password={}, database={}, encryption=\"require\")",
                quoted(server),
                quoted(account),
                quoted(password),
                quoted(database)
            ),
        ),
        setting(
            "tedious",
            format!(
                "new Connection({{ server: {}, authentication: {{ type: \"default\", options: {{ userName: {}, password: {} }} }}, options: {{ port: {port}, database: {}, encrypt: true{file} }} }})",
                quoted(server),
                quoted(account),
                quoted(password),
                quoted(database)
            ),
        ),
        setting(
            "sqlalchemy",
            format!(
                "create_engine(URL.create(\"mssql+pyodbc\", username={}, password={}, host={}, port={port}, database={}, query={{\"driver\": \"ODBC Driver 18 for SQL Server\", \"Encrypt\": \"yes\"}}))",
                quoted(account),
                quoted(password),
                quoted(server),
                quoted(database)
            ),
        ),
    ];
    // our own CA has to be known to the machine, where a tool takes none with the connection
    all.into_iter().map(|setting| Setting { note: trust(&setting.tool).filter(|_| own_ca).map(str::to_owned), ..setting }).collect()
}

/// Percent-encoding of what a URL gives another meaning.
fn encoded(text: &str) -> String {
    text.bytes().map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

/// A value in libpq's own quoting.
fn word(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains([' ', '\'', '\\']);
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")) }
}

fn shell(text: &str) -> String {
    // in double quotes where nothing in it means anything to a shell there: people paste it on Windows too
    if text.contains(' ') && !text.contains(['"', '$', '`', '\\', '!', '\'']) {
        return format!("\"{text}\"");
    }
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(engine: &str, database: &str) -> Connection {
        Connection {
            engine: engine.to_owned(),
            account: "jit_maria_a4fz".to_owned(),
            password: "pa55word".to_owned(),
            server: "uat.db.example.com".to_owned(),
            port: 1433,
            database: database.to_owned(),
            server_and_database: format!("uat\\{database}"),
            ends_at: None,
            ca: String::new(),
            settings: Vec::new(),
        }
    }

    #[test]
    fn every_tool_gets_server_database_and_account_and_no_password_where_others_can_read_it() {
        for (engine, name, tools) in [
            (Engine::SqlServer, "sqlserver", &["ssms", "vscode-mssql", "sqlcmd", "ado.net", "jdbc", "odbc", "pymssql", "tedious", "sqlalchemy"][..]),
            (Engine::Postgres, "postgres", &["psql", "dbeaver", "pgadmin", "jdbc", "psycopg", "sqlalchemy", "node-postgres", "go", "libpq"]),
        ] {
            let found = settings(engine, &way(name, "uat"));
            assert_eq!(found.iter().map(|s| s.tool.as_str()).collect::<Vec<_>>(), tools);
            for Setting { tool, text, .. } in found {
                assert!(text.contains("uat.db.example.com") && text.contains("1433") && text.contains("jit_maria_a4fz"), "{tool}: {text}");
                let others_read_it = ["sqlcmd", "psql", "libpq"].contains(&tool.as_str());
                assert_eq!(text.contains("pa55word"), !others_read_it, "{tool}: {text}");
            }
        }
    }

    #[test]
    fn every_tool_of_sql_server_is_told_how_to_know_our_own_ca() {
        let own = Connection { ca: "-----BEGIN CERTIFICATE-----".to_owned(), ..way("sqlserver", "uat") };
        for Setting { tool, text, note } in settings(Engine::SqlServer, &own) {
            assert!(text.contains("ca.pem") || note.is_some_and(|note| note.contains("ca.pem")), "{tool}: {text}");
        }
        assert!(settings(Engine::SqlServer, &way("sqlserver", "uat")).iter().all(|setting| setting.note.is_none() && !setting.text.contains("ca.pem")));
    }

    #[test]
    fn a_strange_name_of_a_database_ends_no_text() {
        let found = settings(Engine::SqlServer, &way("sqlserver", "a}b\"c'd"));
        let text = |tool: &str| found.iter().find(|s| s.tool == tool).unwrap().text.clone();
        assert!(text("odbc").contains("Database={a}}b\"c'd};"));
        assert!(text("tedious").contains("\"a}b\\\"c'd\""));
        assert!(text("ado.net").contains("Database=\"a}b\"\"c'd\";"));
        assert!(text("sqlcmd").contains("-d 'a}b\"c'\\''d' "));
        let found = settings(Engine::Postgres, &way("postgres", "a b&c\"\\"));
        let text = |tool: &str| found.iter().find(|s| s.tool == tool).unwrap().text.clone();
        assert!(text("libpq").contains("/a%20b%26c%22%5C?") && text("jdbc").contains("/a%20b%26c%22%5C?"));
        assert!(text("psycopg").contains("dbname=\"a b&c\\\"\\\\\"") && text("node-postgres").contains("database: \"a b&c\\\"\\\\\""));
        assert!(text("go").contains("dbname='a b&c\\\"\\\\\\\\'"));
        assert!(settings(Engine::Postgres, &way("postgres", "a' sslmode=disable"))[0].text.contains("dbname='\\''a\\'\\'' sslmode=disable'\\''"));
    }
}

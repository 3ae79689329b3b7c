"""Reads lines of a grammar's name, a tab and a batch of Transact-SQL; says which batches Microsoft's ScriptDom does not take, and why.

The one argument is the folder of scripts/tools. ScriptDom comes with the SQL Tools Service, which comes with mssql-cli; it runs on the .NET of
dotnetcore2. Its newest grammar there is that of 2019.
"""

import json, os, pathlib, sys, tempfile

os.environ["DOTNET_SYSTEM_GLOBALIZATION_INVARIANT"] = "1"
from clr_loader import get_coreclr
from pythonnet import set_runtime

packages = next(pathlib.Path(sys.argv[1]).glob("lib/python3*/site-packages"))
with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
    json.dump({"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "3.1.0"}}}, config)
    config.flush()
    set_runtime(get_coreclr(runtime_config=config.name, dotnet_root=str(packages / "dotnetcore2" / "bin")))

import clr

sys.path.append(str(packages / "mssqlcli" / "mssqltoolsservice" / "bin"))
clr.AddReference("Microsoft.SqlServer.TransactSql.ScriptDom")
from Microsoft.SqlServer.TransactSql.ScriptDom import SqlEngineType, TSql130Parser, TSql140Parser, TSql150Parser
from System.IO import StringReader

server, azure = SqlEngineType.Standalone, SqlEngineType.SqlAzure
parsers = {
    "2016": TSql130Parser(True, server),
    "2017": TSql140Parser(True, server),
    "2019": TSql150Parser(True, server),
    "2022": TSql150Parser(True, server),
    "2025": TSql150Parser(True, server),
    "azure": TSql150Parser(True, azure),
    # Managed Instance has the grammar of the server, with less of it
    "managed": TSql150Parser(True, server),
}
count = 0
for line in sys.stdin:
    grammar, sql = line.rstrip("\n").split("\t", 1)
    _, errors = parsers[grammar].Parse(StringReader(sql), None)
    count += 1
    for error in errors:
        print(f"{grammar}: {sql}: {error.Message} (line {error.Line}, column {error.Column})")
print(f"parsed {count}")

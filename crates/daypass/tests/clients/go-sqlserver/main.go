// One case with Microsoft's driver of SQL Server for Go. As client.py: the first line of standard input says which, READY waits for the next,
// the last line of output is the result.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	mssql "github.com/microsoft/go-mssqldb"
)

type wish struct {
	Client, Case, Host, User, Password, Database, Ca string
	Port                                             int
	Trust                                            bool
	Encrypt                                          any
}

const orders = "SELECT COUNT(*) FROM sales.orders"

var (
	want  wish
	input = bufio.NewReader(os.Stdin)
	ctx   = context.Background()
)

func ready() {
	fmt.Println("READY")
	_, _ = input.ReadString('\n')
}

func series(count int) string {
	return fmt.Sprintf("SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, %d)", count)
}

func notes() string {
	return fmt.Sprintf("SELECT COUNT(*) FROM dbo.notes WHERE note LIKE '%s %%'", want.Client)
}

func open() (*sql.Conn, error) {
	values := url.Values{"encrypt": {"true"}, "dial timeout": {"15"}, "connection timeout": {"60"}}
	if want.Encrypt == "strict" {
		values.Set("encrypt", "strict")
	}
	if want.Trust {
		values.Set("TrustServerCertificate", "true")
	} else {
		values.Set("certificate", want.Ca)
	}
	if want.Database != "" {
		values.Set("database", want.Database)
	}
	where := url.URL{Scheme: "sqlserver", User: url.UserPassword(want.User, want.Password), Host: fmt.Sprintf("%s:%d", want.Host, want.Port),
		RawQuery: values.Encode()}
	db, err := sql.Open("sqlserver", where.String())
	if err != nil {
		return nil, err
	}
	return db.Conn(ctx)
}

func ask(conn *sql.Conn, text string, values ...any) (int64, error) {
	var found int64
	err := conn.QueryRowContext(ctx, text, values...).Scan(&found)
	return found, err
}

func stream(conn *sql.Conn, count int, begun func()) (int, int, error) {
	found, err := conn.QueryContext(ctx, series(count))
	if err != nil {
		return 0, 0, err
	}
	rows, size := 0, 0
	var n int64
	var text string
	for found.Next() {
		if err := found.Scan(&n, &text); err != nil {
			return rows, size, err
		}
		if rows == 0 {
			begun()
		}
		rows, size = rows+1, size+2*len(text)
	}
	return rows, size, found.Err()
}

func transaction(conn *sql.Conn, text string, commit bool) error {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(fmt.Sprintf("INSERT INTO dbo.notes (id, note) VALUES (1, '%s %s')", want.Client, text)); err != nil {
		return err
	}
	if commit {
		return tx.Commit()
	}
	return tx.Rollback()
}

func bulk(conn *sql.Conn) error {
	load, err := conn.PrepareContext(ctx, mssql.CopyIn("dbo.notes", mssql.BulkOptions{}, "id", "note", "amount"))
	if err != nil {
		return err
	}
	for n := range 2000 {
		if _, err := load.ExecContext(ctx, n, fmt.Sprintf("%s %d", want.Client, n), float64(n)/2); err != nil {
			return err
		}
	}
	if _, err := load.ExecContext(ctx); err != nil {
		return err
	}
	return load.Close()
}

func run() (string, error) {
	conn, err := open()
	if err != nil {
		return "", err
	}
	count := func() (string, error) {
		found, err := ask(conn, orders)
		return fmt.Sprint(found), err
	}
	switch want.Case {
	case "connect":
		return count()
	case "idle":
		if _, err := count(); err != nil {
			return "", err
		}
		ready()
		return count()
	case "midresult", "large":
		most, begun := 13_200, func() {}
		if want.Case == "midresult" {
			most, begun = 100_000_000, func() { fmt.Println("READY") }
		}
		rows, size, err := stream(conn, most, begun)
		return fmt.Sprintf("%d rows, %d MB", rows, size/1_000_000), err
	case "cancel":
		// by a deadline it would throw the connection away
		soon, cancel := context.WithCancel(ctx)
		time.AfterFunc(2*time.Second, cancel)
		_, said := conn.ExecContext(soon, "WAITFOR DELAY '00:00:30'")
		if said == nil {
			return "", errors.New("the statement was not cancelled")
		}
		again, err := count()
		return fmt.Sprintf("%v; afterwards: %s", said, again), err
	case "transaction", "bulk":
		before, err := ask(conn, notes())
		if err != nil {
			return "", err
		}
		unit := "row"
		if want.Case == "bulk" {
			err, unit = bulk(conn), "rows"
		} else {
			err = errors.Join(transaction(conn, "rolled back", false), transaction(conn, "committed", true))
		}
		if err != nil {
			return "", err
		}
		after, err := ask(conn, notes())
		return fmt.Sprintf("%d %s", after-before, unit), err
	case "prepared":
		var found []string
		for _, most := range []int{40, 80} {
			n, err := ask(conn, "SELECT COUNT(*) FROM sales.orders WHERE id <= @p1 AND customer = @p2", most, "Contoso")
			if err != nil {
				return "", err
			}
			found = append(found, fmt.Sprint(n))
		}
		return strings.Join(found, ", "), nil
	}
	return "", fmt.Errorf("there is no case %s", want.Case)
}

func main() {
	line, _ := input.ReadString('\n')
	if err := json.Unmarshal([]byte(line), &want); err != nil {
		panic(err)
	}
	begun := time.Now()
	text, err := run()
	if err != nil {
		text = err.Error()
	}
	out, _ := json.Marshal(map[string]any{"ok": err == nil, "text": text, "milliseconds": time.Since(begun).Milliseconds()})
	fmt.Println(string(out))
}

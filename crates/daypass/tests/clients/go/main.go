// One case with one of Go's drivers for PostgreSQL. As client.py: the first line of standard input says which, READY waits for the next, the
// last line of output is the result.
package main

import (
	"bufio"
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lib/pq"
)

type wish struct {
	Client, Case, Host, User, Password, Database, Ca, Text string
	Port                                             int
}

const (
	orders = "SELECT count(*) FROM sales.orders"
	sleep  = "SELECT pg_sleep(30)"
	whoAmI = "SELECT pg_backend_pid() FROM pg_sleep(0.1)"
)

var (
	want  wish
	input = bufio.NewReader(os.Stdin)
	ctx   = context.Background()
)

func ready() {
	fmt.Println("READY")
	_, _ = input.ReadString('\n')
}

func way() string {
	values := url.Values{"sslmode": {"verify-full"}, "sslrootcert": {want.Ca}, "connect_timeout": {"15"}}
	where := url.URL{Scheme: "postgres", User: url.UserPassword(want.User, want.Password), Host: fmt.Sprintf("%s:%d", want.Host, want.Port),
		Path: "/" + want.Database, RawQuery: values.Encode()}
	return where.String()
}

func series(count int) string {
	return fmt.Sprintf("SELECT n, repeat('x', 4000) FROM generate_series(1, %d) n", count)
}

func notes() string {
	return fmt.Sprintf("SELECT count(*) FROM sales.notes WHERE note LIKE '%s %%'", want.Client)
}

func insert(text string) string {
	return fmt.Sprintf("INSERT INTO sales.notes (id, note) VALUES (1, '%s %s')", want.Client, text)
}

// What both drivers do each in its own way.
type driver interface {
	ask(sql string, values ...any) (int64, error)
	exec(sql string) error
	stream(count int, begun func()) (rows, size int, err error)
	cancelled() error
	pid() uint32
	transaction(text, end string) error
	copyIn() error
	copyOut() (int64, error)
	pipeline() (int, error)
	listen() error
	heard() (string, error)
	pool() (func(sql string) (int64, error), error)
}

type viaPgx struct{ conn *pgx.Conn }

func openPgx() (driver, error) {
	conn, err := pgx.Connect(ctx, way())
	if err != nil {
		return nil, err
	}
	return &viaPgx{conn}, nil
}

func (d *viaPgx) ask(sql string, values ...any) (int64, error) {
	var found int64
	err := d.conn.QueryRow(ctx, sql, values...).Scan(&found)
	return found, err
}

func (d *viaPgx) exec(sql string) error {
	_, err := d.conn.Exec(ctx, sql)
	return err
}

func (d *viaPgx) stream(count int, begun func()) (int, int, error) {
	found, err := d.conn.Query(ctx, series(count))
	if err != nil {
		return 0, 0, err
	}
	rows, size := 0, 0
	for found.Next() {
		if rows == 0 {
			begun()
		}
		rows, size = rows+1, size+len(found.RawValues()[1])
	}
	return rows, size, found.Err()
}

// Its own way of giving up closes the connection; this one asks the server.
func (d *viaPgx) cancelled() error {
	time.AfterFunc(500*time.Millisecond, func() { _ = d.conn.PgConn().CancelRequest(ctx) })
	return d.exec(sleep)
}

func (d *viaPgx) pid() uint32 { return d.conn.PgConn().PID() }

func (d *viaPgx) transaction(text, end string) error {
	tx, err := d.conn.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, insert(text)); err != nil {
		return err
	}
	if end == "COMMIT" {
		return tx.Commit(ctx)
	}
	return tx.Rollback(ctx)
}

func (d *viaPgx) copyIn() error {
	rows := make([][]any, 2000)
	for n := range rows {
		rows[n] = []any{n, fmt.Sprintf("%s %d", want.Client, n), float64(n) / 2}
	}
	_, err := d.conn.CopyFrom(ctx, pgx.Identifier{"sales", "notes"}, []string{"id", "note", "amount"}, pgx.CopyFromRows(rows))
	return err
}

func (d *viaPgx) copyOut() (int64, error) {
	var out strings.Builder
	tag, err := d.conn.PgConn().CopyTo(ctx, &out, "COPY sales.orders TO STDOUT")
	return tag.RowsAffected(), err
}

func (d *viaPgx) pipeline() (int, error) {
	batch := &pgx.Batch{}
	for n := range 20 {
		batch.Queue("SELECT $1::int", n)
	}
	results := d.conn.SendBatch(ctx, batch)
	defer results.Close()
	answers := 0
	for n := range 20 {
		var found int
		if err := results.QueryRow().Scan(&found); err != nil || found != n {
			return answers, fmt.Errorf("%d: %d %w", n, found, err)
		}
		answers++
	}
	return answers, nil
}

func (d *viaPgx) listen() error { return d.exec("LISTEN news") }

func (d *viaPgx) heard() (string, error) {
	soon, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	said, err := d.conn.WaitForNotification(soon)
	if err != nil {
		return "", err
	}
	return said.Payload, nil
}

func (d *viaPgx) pool() (func(string) (int64, error), error) {
	config, err := pgxpool.ParseConfig(way())
	if err != nil {
		return nil, err
	}
	config.MaxConns = 4
	pool, err := pgxpool.NewWithConfig(ctx, config)
	return func(sql string) (int64, error) {
		var found int64
		err := pool.QueryRow(ctx, sql).Scan(&found)
		return found, err
	}, err
}

// lib/pq, through database/sql as everybody uses it.
type viaPq struct {
	db       *sql.DB
	conn     *sql.Conn
	listener *pq.Listener
}

func openPq() (driver, error) {
	db, err := sql.Open("postgres", way())
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &viaPq{db: db, conn: conn}, nil
}

func (d *viaPq) ask(text string, values ...any) (int64, error) {
	var found int64
	err := d.conn.QueryRowContext(ctx, text, values...).Scan(&found)
	return found, err
}

func (d *viaPq) exec(text string) error {
	_, err := d.conn.ExecContext(ctx, text)
	return err
}

func (d *viaPq) stream(count int, begun func()) (int, int, error) {
	found, err := d.conn.QueryContext(ctx, series(count))
	if err != nil {
		return 0, 0, err
	}
	rows, size := 0, 0
	var n int
	var text string
	for found.Next() {
		if err := found.Scan(&n, &text); err != nil {
			return rows, size, err
		}
		if rows == 0 {
			begun()
		}
		rows, size = rows+1, size+len(text)
	}
	return rows, size, found.Err()
}

func (d *viaPq) cancelled() error {
	soon, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	_, err := d.conn.ExecContext(soon, sleep)
	return err
}

func (d *viaPq) pid() uint32 { return 0 }

func (d *viaPq) transaction(text, end string) error {
	tx, err := d.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(insert(text)); err != nil {
		return err
	}
	if end == "COMMIT" {
		return tx.Commit()
	}
	return tx.Rollback()
}

func (d *viaPq) copyIn() error {
	tx, err := d.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	load, err := tx.Prepare(pq.CopyInSchema("sales", "notes", "id", "note", "amount"))
	if err != nil {
		return err
	}
	for n := range 2000 {
		if _, err := load.Exec(n, fmt.Sprintf("%s %d", want.Client, n), float64(n)/2); err != nil {
			return err
		}
	}
	if _, err := load.Exec(); err != nil {
		return err
	}
	return errors.Join(load.Close(), tx.Commit())
}

func (d *viaPq) copyOut() (int64, error) { return 0, nil }
func (d *viaPq) pipeline() (int, error)  { return 0, errors.New("it has none") }

func (d *viaPq) listen() error {
	d.listener = pq.NewListener(way(), time.Second, time.Second, nil)
	return d.listener.Listen("news")
}

func (d *viaPq) heard() (string, error) {
	select {
	case said := <-d.listener.Notify:
		if said == nil {
			return "", errors.New("the listener was cut off")
		}
		return said.Extra, nil
	case <-time.After(10 * time.Second):
		return "", errors.New("nothing heard")
	}
}

func (d *viaPq) pool() (func(string) (int64, error), error) {
	db, err := sql.Open("postgres", way())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	return func(text string) (int64, error) {
		var found int64
		err := db.QueryRowContext(ctx, text).Scan(&found)
		return found, err
	}, nil
}

func run(open func() (driver, error)) (string, error) {
	db, err := open()
	if err != nil {
		return "", err
	}
	switch want.Case {
	// what the connection panel shows, as somebody would paste it
	case "panel":
		if want.Client == "pgx" {
			var dsn string
			quoted := strings.TrimSuffix(strings.TrimPrefix(want.Text, "pgx.Connect(ctx, "), ")")
			if err := json.Unmarshal([]byte(quoted), &dsn); err != nil {
				return "", err
			}
			conn, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return "", err
			}
			db = &viaPgx{conn}
		} else {
			os.Setenv("PGPASSWORD", want.Password)
			pasted, err := sql.Open("postgres", want.Text)
			if err != nil {
				return "", err
			}
			conn, err := pasted.Conn(ctx)
			if err != nil {
				return "", err
			}
			db = &viaPq{db: pasted, conn: conn}
		}
		count, err := db.ask(orders)
		return fmt.Sprint(count), err
	case "connect":
		count, err := db.ask(orders)
		return fmt.Sprint(count), err
	case "idle":
		if _, err := db.ask(orders); err != nil {
			return "", err
		}
		ready()
		count, err := db.ask(orders)
		return fmt.Sprint(count), err
	case "midresult", "large":
		count, begun := 26_400, func() {}
		if want.Case == "midresult" {
			count, begun = 100_000_000, func() { fmt.Println("READY") }
		}
		rows, size, err := db.stream(count, begun)
		return fmt.Sprintf("%d rows, %d MB", rows, size/1_000_000), err
	case "cancel":
		said := db.cancelled()
		if said == nil {
			return "", errors.New("the statement was not cancelled")
		}
		count, err := db.ask(orders)
		other := ""
		if errors.Is(err, sqldriver.ErrBadConn) {
			// its way to give a statement up is to give the connection up
			if db, err = open(); err != nil {
				return "", err
			}
			other = ", on another connection"
			count, err = db.ask(orders)
		}
		return fmt.Sprintf("%v; afterwards%s: %d", said, other, count), err
	case "pid":
		number, err := db.ask("SELECT pg_backend_pid()")
		if err != nil || number != int64(db.pid()) {
			return "", fmt.Errorf("the driver says %d: %w", db.pid(), err)
		}
		other, err := open()
		if err != nil {
			return "", err
		}
		time.AfterFunc(500*time.Millisecond, func() { _ = other.exec(fmt.Sprintf("SELECT pg_cancel_backend(%d)", number)) })
		if said := db.exec(sleep); said == nil || !strings.Contains(said.Error(), "canceling statement due to user request") {
			return "", fmt.Errorf("it was not stopped: %w", said)
		}
		return "its own, and it stops the session", nil
	case "transaction":
		before, err := db.ask(notes())
		if err != nil {
			return "", err
		}
		if err := errors.Join(db.transaction("rolled back", "ROLLBACK"), db.transaction("committed", "COMMIT")); err != nil {
			return "", err
		}
		after, err := db.ask(notes())
		return fmt.Sprintf("%d row", after-before), err
	case "prepared":
		var found []string
		for _, most := range []int{40, 80} {
			count, err := db.ask("SELECT count(*) FROM sales.orders WHERE id <= $1 AND customer = $2", most, "Contoso")
			if err != nil {
				return "", err
			}
			found = append(found, fmt.Sprint(count))
		}
		return strings.Join(found, ", "), nil
	case "copy":
		before, err := db.ask(notes())
		if err != nil {
			return "", err
		}
		if err := db.copyIn(); err != nil {
			return "", err
		}
		after, err := db.ask(notes())
		if err != nil {
			return "", err
		}
		out, err := db.copyOut()
		if out == 0 {
			return fmt.Sprintf("%d rows in; it has no COPY out", after-before), err
		}
		return fmt.Sprintf("%d rows in, %d rows out", after-before, out), err
	case "pipeline":
		answers, err := db.pipeline()
		return fmt.Sprintf("%d answers", answers), err
	case "notify":
		if err := db.listen(); err != nil {
			return "", err
		}
		other, err := open()
		if err != nil {
			return "", err
		}
		if err := other.exec("SELECT pg_notify('news', 'hello')"); err != nil {
			return "", err
		}
		said, err := db.heard()
		return "heard " + said, err
	case "pool":
		ask, err := db.pool()
		if err != nil {
			return "", err
		}
		var waiting sync.WaitGroup
		var lock sync.Mutex
		sessions, answers := map[int64]bool{}, 0
		for range 8 {
			waiting.Go(func() {
				number, err := ask(whoAmI)
				lock.Lock()
				defer lock.Unlock()
				if err == nil {
					sessions[number] = true
					answers++
				}
			})
		}
		waiting.Wait()
		if answers != 8 || len(sessions) > 4 {
			return "", fmt.Errorf("%d answers by %d sessions", answers, len(sessions))
		}
		ready()
		var said error
		for range 3 {
			if _, said = ask(orders); said == nil {
				return "", errors.New("still in")
			}
		}
		return "8 answers by 4 sessions; then: " + words(said), nil
	}
	return "", fmt.Errorf("there is no case %s", want.Case)
}

func words(err error) string {
	said := err.Error()
	var one *pgconn.PgError
	var other *pq.Error
	if errors.As(err, &one) && one.Hint != "" {
		said += " " + one.Hint
	}
	if errors.As(err, &other) && other.Hint != "" {
		said += " " + other.Hint
	}
	return said
}

func main() {
	line, _ := input.ReadString('\n')
	if err := json.Unmarshal([]byte(line), &want); err != nil {
		panic(err)
	}
	open := openPgx
	if want.Client == "lib/pq" {
		open = openPq
	}
	begun := time.Now()
	text, err := run(open)
	if err != nil {
		text = words(err)
	}
	out, _ := json.Marshal(map[string]any{"ok": err == nil, "text": text, "milliseconds": time.Since(begun).Milliseconds()})
	fmt.Println(string(out))
}

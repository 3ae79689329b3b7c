#!/usr/bin/env bash
# An example of a restore command for `daypass move ENV restore --at TIME` (docs/movement.md): point-in-time recovery of PostgreSQL from a
# base backup and a WAL archive, as pg_basebackup and archive_command write them. With pgBackRest or Barman, put their restore in the
# place of the cp below.
#
#   BASE     the base backup (a data directory)      ARCHIVE  the folder of archived WAL
#   PGBIN    where postgres and pg_ctl lie           PGPORT   a free port on this machine
#   WORK     a folder for the restored server, which only this script uses
#
# Daypass gives DAYPASS_RESTORE_TO and DAYPASS_DATABASE, and calls it with start, and later with stop.
set -euo pipefail
# whoever reaches the restored server is its superuser: the folder of its socket is for this user alone
umask 077
data=$WORK/data
# PostgreSQL refuses to run as root
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid=postgres --regid=postgres --clear-groups --); fi

case $1 in
start)
    rm -rf "$WORK" && mkdir -p "$WORK"
    cp -r "$BASE" "$data"
    rm -f "$data/postmaster.pid" "$data/standby.signal"
    touch "$data/recovery.signal"
    # the copy lives for minutes, and only its folder's owner (and root) reaches it
    printf 'local all all trust\n' >"$data/pg_hba.conf"
    cat >>"$data/postgresql.auto.conf" <<CONF
restore_command = 'cp "$ARCHIVE/%f" "%p"'
recovery_target_time = '${DAYPASS_RESTORE_TO%Z}+00'
recovery_target_action = 'promote'
archive_mode = off
hot_standby = off
CONF
    chmod 700 "$data"
    if [ "$(id -u)" = 0 ]; then chown -R postgres:postgres "$WORK"; fi
    "${as[@]}" "$PGBIN/pg_ctl" --pgdata "$data" --log "$WORK/log" --wait --timeout 3600 \
        --options "-p $PGPORT -k $WORK -c listen_addresses= -c ssl=off -c unix_socket_permissions=0700 \
            -c max_logical_replication_workers=0 -c cron.launch_active_jobs=off" start >&2 ||
        { tail -n 5 "$WORK/log" >&2; exit 1; }
    # pg_ctl is content once the log is being replayed; connections are taken when that is over
    for _ in $(seq 3600); do
        if "$PGBIN/pg_isready" --quiet --host "$WORK" --port "$PGPORT"; then break; fi
        if ! "${as[@]}" "$PGBIN/pg_ctl" --pgdata "$data" status >/dev/null; then tail -n 5 "$WORK/log" >&2; exit 1; fi
        sleep 1
    done
    printf 'host=%s\nport=%s\nuser=postgres\ndbname=%s\n' "$WORK" "$PGPORT" "$DAYPASS_DATABASE"
    ;;
stop)
    if [ -e "$data/postmaster.pid" ]; then "${as[@]}" "$PGBIN/pg_ctl" --pgdata "$data" --mode immediate --wait stop >&2; fi
    rm -rf "$WORK"
    ;;
*)
    echo "start or stop" >&2
    exit 2
    ;;
esac

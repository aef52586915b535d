package store

import (
	"context"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"

	"github.com/memhook/memhook/migrations"
)

// memhook's tables, River's and the migrations' versions stand in one schema, which is the first of each session's search_path:
//
//	where an operator chose  DATABASE_URL has search_path, or, through a transaction pooler, the role has
//	where they are           a database that was begun before memhook had a schema of its own has them in public
//	memhook                  otherwise
//
// Other programs also have River, goose, or a table of accounts. Where one of those is in the schema, nothing is touched.

const schemaName = "memhook"

// isOurs is the SQL condition that a schema, given as an expression, holds memhook's tables.
func isOurs(schema string) string {
	return `exists (
		select 1
		from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
		where n.nspname = ` + schema + ` and c.relname = 'accounts' and a.attname = 'next_slot_at')`
}

// chosenPath is the SQL expression of a session's search_path.
var chosenPath = `case when not ` + isOurs(`'`+schemaName+`'`) + ` and ` + isOurs(`current_schema()`) + `
	then current_setting('search_path') else '` + schemaName + `' end`

// schemaOf is what a session finds.
type schemaOf struct {
	Name     string // of the schema; empty where there is none
	Ours     bool   // memhook's tables are in it
	Path     string // the search_path
	User     string
	Database string
}

func readSchema(ctx context.Context, pool *pgxpool.Pool) (schemaOf, error) {
	found, err := one[schemaOf](ctx, pool, `
		select coalesce(current_schema(), '') as name, `+isOurs(`current_schema()`)+` as ours, current_setting('search_path') as path,
			current_user::text as "user", current_database()::text as database`)
	return found, wrapped("read the schema", err)
}

// checkOurs returns an error unless the schema holds memhook's tables.
func checkOurs(ctx context.Context, pool *pgxpool.Pool) error {
	found, err := readSchema(ctx, pool)
	if err == nil && !found.Ours {
		err = refusal("there is no memhook in the database " + found.Database + " (search_path " + found.Path + ")")
	}
	return err
}

// claimSchema makes the schema where it is missing, and returns an error if another program's tables are in it.
func claimSchema(ctx context.Context, pool *pgxpool.Pool) error {
	found, err := readSchema(ctx, pool)
	if err != nil || found.Ours {
		return err
	}
	if found.Name == "" || (transactionPooled(pool) && found.Name != schemaName) {
		if err := createSchema(ctx, pool, found); err != nil {
			return err
		}
	}
	taken, err := takenNames(ctx, pool)
	if err != nil {
		return fmt.Errorf("look for other programs' tables: %w", err)
	}
	if len(taken) > 0 {
		return refusal("the schema " + found.Name + " has tables of another program (" + strings.Join(taken, ", ") +
			"): give memhook a schema of its own with search_path in DATABASE_URL, or a database")
	}
	return nil
}

func createSchema(ctx context.Context, pool *pgxpool.Pool, found schemaOf) error {
	_, err := pool.Exec(ctx, `do $$ begin
		if to_regnamespace('`+schemaName+`') is null then create schema `+schemaName+`; end if;
	end $$`)
	if isDenied(err) {
		return refusal("the user " + found.User + " may not make the schema " + schemaName + ": as the database's owner: create schema " +
			schemaName + " authorization " + pgx.Identifier{found.User}.Sanitize())
	}
	if err != nil {
		return fmt.Errorf("make the schema: %w", err)
	}
	after, err := readSchema(ctx, pool)
	if err != nil || after.Name == schemaName {
		return err
	}
	if !transactionPooled(pool) {
		return refusal("the schema of DATABASE_URL's search_path (" + found.Path + ") does not exist, or the user " + found.User +
			" may not use it")
	}
	return refusal("through a transaction pooler the role's search_path counts, which is " + found.Path + ": alter role " +
		pgx.Identifier{found.User}.Sanitize() + " in database " + pgx.Identifier{found.Database}.Sanitize() + " set search_path = " + schemaName)
}

var tableMade = regexp.MustCompile(`(?m)^create table (?:if not exists )?(\w+)`)

// takenNames returns those tables in the schema that have the name of one that is to be made.
func takenNames(ctx context.Context, pool *pgxpool.Pool) ([]string, error) {
	names := []string{"river_migration", "river_job", "river_leader", "river_queue", "river_client", "river_client_queue"}
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := migrations.FS.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, match := range tableMade.FindAllSubmatch(text, -1) {
			names = append(names, string(match[1]))
		}
	}
	taken, err := scalars[string](ctx, pool, `
		select c.relname::text from pg_class c
		where c.relnamespace = to_regnamespace(quote_ident(current_schema())) and c.relname = any($1) and c.relkind in ('r', 'p', 'v', 'm', 'f')
		order by 1`, names)
	if err != nil {
		return nil, err
	}
	// A first migration that failed leaves goose's table at version 0.
	var begun bool
	err = pool.QueryRow(ctx, `select to_regclass($1) is not null`, goose.DefaultTablename).Scan(&begun)
	if begun {
		err = pool.QueryRow(ctx, `select exists (select 1 from `+goose.DefaultTablename+` where version_id > 0)`).Scan(&begun)
	}
	if begun {
		taken = append(taken, goose.DefaultTablename)
	}
	return taken, err
}

// dropSchema removes what the migrations leave: their versions, and the schema if memhook made it and nothing else is in it.
func dropSchema(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, `drop table if exists `+goose.DefaultTablename); err != nil {
		return fmt.Errorf("drop the migrations' versions: %w", err)
	}
	found, err := readSchema(ctx, pool)
	if err != nil || found.Name != schemaName {
		return err
	}
	if _, err := pool.Exec(ctx, `drop schema `+schemaName); err != nil && !isDenied(err) && !isDependedOn(err) {
		return fmt.Errorf("drop the schema: %w", err)
	}
	return nil
}

// Rights is what a role may do in memhook's schema.
type Rights struct {
	User     string
	Schema   string // empty where it is still to be made
	Migrate  bool   // it may make the schema's tables and change them
	Serve    bool   // it may read and change all rows of all tables
	Migrated bool   // there are tables
}

// ReadRights returns the rights of the pool's role.
func ReadRights(ctx context.Context, pool *pgxpool.Pool) (Rights, error) {
	found, err := one[Rights](ctx, pool, `
		with ours as (
			select c.oid, c.relkind
			from pg_class c
			where c.relnamespace = to_regnamespace(quote_ident(current_schema())) and c.relkind in ('r', 'p', 'S')
				and not (c.relispartition and c.relname ~ '_d[0-9]{8}$') -- the service reaches it by its parent
		)
		select current_user::text as "user", coalesce(current_schema(), '') as schema, `+isOurs(`current_schema()`)+` as migrated,
			case when current_schema() is null then has_database_privilege(current_database(), 'create')
				else has_schema_privilege(current_schema(), 'create')
					and not exists (select 1 from ours join pg_class c using (oid) where not pg_has_role(c.relowner, 'usage')) end as migrate,
			not exists (
				select 1 from ours
				where case when relkind = 'S' then not has_sequence_privilege(oid, 'usage')
					else not (has_table_privilege(oid, 'select') and has_table_privilege(oid, 'insert')
						and has_table_privilege(oid, 'update') and has_table_privilege(oid, 'delete')) end) as serve`)
	return found, wrapped("read the role's rights", err)
}

// isDependedOn reports whether something cannot be dropped because of what is in it.
func isDependedOn(err error) bool { return sqlState(err) == "2BP01" }

-- What pg_dump treats specially, in one small database. {role} is replaced by a role that exists.
CREATE EXTENSION IF NOT EXISTS plpgsql;
CREATE SCHEMA "Odd Schema";
COMMENT ON SCHEMA "Odd Schema" IS E'a comment with ''quotes'', \\ and\na line feed';
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE DOMAIN percentage AS numeric(5, 2) CHECK (VALUE BETWEEN 0 AND 100);
CREATE TYPE point3 AS (x float8, y float8, z float8);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE COLLATION plain (locale = 'C');
CREATE SEQUENCE numbers START 7 INCREMENT 3 CACHE 5;
SELECT nextval('numbers'), nextval('numbers');
CREATE TABLE "Odd Schema"."The ""Table""" (
    id bigint GENERATED ALWAYS AS IDENTITY,
    "a column" text COLLATE "C",
    doubled bigint GENERATED ALWAYS AS (length("a column") * 2) STORED,
    feeling mood DEFAULT 'happy',
    share percentage,
    at timestamptz,
    raw bytea,
    doc json,
    docb jsonb,
    tags text[],
    grid int[][],
    place point3,
    extent span,
    net inet,
    uid uuid,
    wait interval,
    bits bit varying(9),
    amount money,
    words tsvector,
    big numeric,
    real8 float8,
    PRIMARY KEY (id)
);
INSERT INTO "Odd Schema"."The ""Table"""
    ("a column", feeling, share, at, raw, doc, docb, tags, grid, place, extent, net, uid, wait, bits, words, big, real8)
SELECT repeat(E'\\.', n % 3) || E'\n\\.\n\t\\N' || chr(1 + n) || '🐘 ünï' || chr(55 + n * 11), 'it''s ok', n % 100,
       '2026-01-01'::timestamptz + n * interval '1 day', decode(md5(n::text), 'hex'),
       format('{"n": %s, "a":  [1, null]}', n)::json, jsonb_build_object('n', n, 'q', E'\'"\\'),
       ARRAY['a,b', '{c}', NULL, 'd"e', '\'], ARRAY[[1, n], [NULL, 4]], ROW(n, -n, 'NaN')::point3,
       span(n, n + 1), ('10.0.0.' || n)::inet, md5(n::text)::uuid, n * interval '1 mon 2 days 3.5 s',
       B'101', to_tsvector('simple', 'quick fox ' || n), 10::numeric ^ (n % 40) + 0.1, 'Infinity'
FROM generate_series(1, 120) n;
INSERT INTO "Odd Schema"."The ""Table""" DEFAULT VALUES;
CREATE TABLE empty ();
CREATE UNLOGGED TABLE fleeting (id int);
INSERT INTO fleeting VALUES (1);
CREATE TABLE measures (day date NOT NULL, sensor int NOT NULL, value real) PARTITION BY RANGE (day);
CREATE TABLE measures_2025 PARTITION OF measures FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE measures_2026 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')
    PARTITION BY LIST (sensor);
CREATE TABLE measures_2026_1 PARTITION OF measures_2026 FOR VALUES IN (0, 1);
CREATE TABLE measures_other PARTITION OF measures DEFAULT;
CREATE INDEX ON measures (sensor, day);
INSERT INTO measures SELECT '2025-06-01'::date + n, n % 2, n / 3.0 FROM generate_series(1, 400) n;
CREATE TABLE parent (id int PRIMARY KEY, note text);
CREATE TABLE child (extra text) INHERITS (parent);
INSERT INTO child VALUES (1, 'inherited', 'x');
CREATE TABLE nodes (id int PRIMARY KEY, up int REFERENCES nodes DEFERRABLE INITIALLY DEFERRED);
INSERT INTO nodes VALUES (1, 2), (2, 1);
CREATE TABLE bookings (room int, during tsrange, EXCLUDE USING gist (during WITH &&) WHERE (room = 1));
CREATE STATISTICS together ON sensor, day FROM measures_2025;
CREATE VIEW happy AS SELECT id, "a column" FROM "Odd Schema"."The ""Table""" WHERE feeling = 'it''s ok';
CREATE VIEW happier WITH (security_barrier) AS SELECT count(*) AS many FROM happy;
CREATE MATERIALIZED VIEW counted AS SELECT many, now() IS NOT NULL AS known FROM happier;
CREATE UNIQUE INDEX ON counted (many);
CREATE FUNCTION shout(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $f$
BEGIN
    RETURN upper($1) || '!; -- \restrict';
END $f$;
CREATE PROCEDURE nothing() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE longest(text) (SFUNC = textcat, STYPE = text);
CREATE OPERATOR !!! (RIGHTARG = text, FUNCTION = shout);
CREATE CAST (mood AS int) WITH INOUT;
CREATE INDEX shouted ON parent (shout(note)) WHERE id > 0;
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN NEW.note := 'changed'; RETURN NEW; END $f$;
CREATE TRIGGER changing BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION changed();
ALTER TABLE parent DISABLE TRIGGER changing;
CREATE FUNCTION noticed() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE DEBUG 'seen'; END $f$;
CREATE EVENT TRIGGER noticing ON ddl_command_end EXECUTE FUNCTION noticed();
CREATE RULE quiet AS ON DELETE TO empty DO INSTEAD NOTHING;
CREATE TABLE guarded (owner name, secret text);
INSERT INTO guarded VALUES ('{role}', 'x'), ('other', 'y');
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON guarded TO "{role}" USING (owner = current_user);
GRANT SELECT (owner), UPDATE ON guarded TO "{role}" WITH GRANT OPTION;
GRANT USAGE ON SCHEMA "Odd Schema" TO "{role}";
ALTER TABLE parent OWNER TO "{role}";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO "{role}";
SELECT lo_from_bytea(4711, decode(repeat('00ff5c2e', 5000), 'hex'));
COMMENT ON LARGE OBJECT 4711 IS 'large';
GRANT SELECT ON LARGE OBJECT 4711 TO "{role}";
COMMENT ON COLUMN "Odd Schema"."The ""Table"""."a column" IS '\. $$ ;';
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE distant (id int) SERVER far;
CREATE TEXT SEARCH CONFIGURATION mine (COPY = simple);

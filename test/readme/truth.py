"""Is what the README and src/doc say of functions, settings, handlers, checks, metrics and memory what the server says?

Read are tables: the arguments of functions in their order, and what they return (an ellipsis stands for any); defaults of
settings, and which need a restart (*); kinds of handlers; metrics with their labels. Each function returns the differences.
"""
import re

import psycopg2

SIGNATURE = re.compile(r"`(?:CALL )?(gt_\w+)\(([^`]*)\)`(?: → (\w+(?:\[\])?(?:, \w+)*))?")
UNITS = {"B": 1, "kB": 1024, "MB": 1024 ** 2, "ms": 1, "s": 1000, "min": 60000, "h": 3600000, "d": 86400000}

FUNCTIONS = """
    SELECT proname::text, prorettype::regtype::text, ARRAY(SELECT n FROM unnest(proargnames, proargmodes) a (n, m) WHERE coalesce(m, 'i') IN ('i', 'b')),
        ARRAY(SELECT n FROM unnest(proargnames, proargmodes) a (n, m) WHERE m = 't')
    FROM pg_proc JOIN pg_depend ON objid = pg_proc.oid AND classid = 'pg_proc'::regclass JOIN pg_extension e ON refobjid = e.oid
    WHERE extname = 'garbagetruck' AND proname !~ '^gt__'"""
METRICS = r"""
    SELECT regexp_replace(substr(name, 14), CASE kind WHEN 'histogram' THEN '_(bucket|sum|count)$' ELSE '^$' END, ''), min(kind),
        array_agg(DISTINCT k) FILTER (WHERE k NOT IN ('database', 'le'))
    FROM gt_metrics(), jsonb_object_keys(labels) k GROUP BY 1"""


def section(text, title):
    start = text.index(f"\n## {title}\n")
    end = text.find("\n## ", start + 1)
    return text[start:end if end > 0 else len(text)]


def rows(text):
    """The cells of the rows of its tables, without the lines beneath their heads."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def quoted(text):
    return re.findall(r"`([^`]+)`", text)


def differ(what, said, real):
    return [] if said == real else [f"{what}: {said!r} is said, it is {real!r}"]


def functions(query, readme):
    real = {name: (result, given, table) for name, result, given, table in query(FUNCTIONS)}
    shown = {}
    for row in rows(section(readme, "Functions")):
        for name, arguments, result in SIGNATURE.findall(row[0]):
            shown[name] = ([a.split()[0] for a in arguments.split(", ") if a], result.split(", "))
    faults = differ("functions", sorted(shown), sorted(real))
    for name in shown.keys() & real.keys():
        arguments, result = shown[name]
        returns, given, table = real[name]
        if "..." in arguments:
            given = given[:arguments.index("...")]
            arguments = arguments[:arguments.index("...")]
        faults += differ(f"arguments of {name}", arguments, given)
        if result != [""]:
            faults += differ(f"what {name} returns", result, table or [returns.replace("timestamp with time zone", "timestamptz")])
    return faults


def base(value):
    """In bytes or milliseconds, where it has a unit."""
    number = re.fullmatch(r"(\d+)(?: ([A-Za-z]+))?", value)
    return int(number[1]) * UNITS.get(number[2], 1) if number else value.strip("`'")


def settings(query, readme):
    real = {name: (base(f"{value} {unit}" if unit else value), context == "postmaster") for name, value, unit, context in query(
        "SELECT substr(name, 14), boot_val, unit, context FROM pg_settings WHERE name LIKE 'garbagetruck.%'")}
    said = {}
    for row in list(rows(section(readme, "Settings")))[1:]:
        for name, value in zip(quoted(row[0]), row[1].split(", ")):
            said[name] = (base(value), row[0].endswith("*"))
    return differ("settings", sorted(said), sorted(real)) + [fault for name in said.keys() & real.keys()
                                                             for fault in differ(name, said[name], real[name])]


def kinds(query, readme):
    try:
        query("SELECT gt_handler_create('truth', 'no such kind')")
        hint = ""
    except psycopg2.Error as e:
        hint = re.fullmatch(r"The kinds are (.*)\.", e.diag.message_hint)[1]
    return differ("kinds of handlers", [kind for row in list(rows(section(readme, "Handlers")))[1:] for kind in quoted(row[0])],
                  re.split(", | and ", hint))


def checks(query, operations):
    said = {name for row in rows(section(operations, "By symptom")) for name in quoted(row[0])}
    return [f"check {name} of gt_health() is not told of" for name, in query("SELECT DISTINCT check_name FROM gt_health()") if name not in said]


def metrics(query, operations):
    real = {name: (sorted(labels or []), kind) for name, kind, labels in query(METRICS)}
    said = {}
    for row in rows(section(operations, "Metrics")):
        for text in quoted(row[0]):
            name, labels = re.fullmatch(r"(\w+)(?:\{([\w,]+)\})?", text).groups()
            said[name] = sorted(labels.split(",")) if labels else []
    faults = differ("metrics", sorted(said), sorted(real))
    for name in said.keys() & real.keys():
        labels, kind = real[name]
        faults += differ(f"labels of {name}", said[name], labels)
        faults += [f"{name} is a {kind}"] if name.endswith("_total") != (kind == "counter") else []
    return faults


def memory(readme, more):
    """What the server asks for more with the library preloaded, in MB, as it rounds that."""
    said = float(re.search(r"\*\*Memory.\*\* ([\d.]+) MB", readme)[1])
    return [] if abs(more - said) < 1.2 else [f"{said} MB of shared memory are said, it is {more}"]


def untrue(query, readme, operations, more):
    """query(statement) returns rows; more: shared memory besides the buffer of renewals, in MB."""
    return memory(readme, more) + [
        fault for look, text in ((functions, readme), (settings, readme), (kinds, readme), (checks, operations), (metrics, operations))
        for fault in look(query, text)]

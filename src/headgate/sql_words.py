"""The words of SQL: what a dialect family knows, and how a text is split into them.

Only what stands here is trusted. Functions are those that neither write, nor leave anything in the session,
nor read what only this session has (``currval``, ``last_insert_rowid``); a new one needs that proof first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_TEXT_BYTES: Final = 256 * 1024
"""Longer texts are not split."""
MAX_TOKENS: Final = 50_000
"""More tokens are not looked at, so that a hostile text costs milliseconds and not a stalled event loop."""


class UnknownTextError(Exception):
    """Something in a text is not known, so nothing can be said about it."""


def require(known: bool) -> None:
    if not known:
        raise UnknownTextError


def _words(*groups: str) -> frozenset[str]:
    return frozenset(word for group in groups for word in group.split())


# --- functions ------------------------------------------------------------------------------------

_COMMON_FUNCTIONS = _words(
    "abs acos asin atan atan2 ceil ceiling cos degrees exp floor ln log log10 mod pi power radians round",
    "sign sin sqrt tan trunc acosh asinh atanh cosh sinh tanh char_length character_length concat",
    "concat_ws length lower ltrim octet_length replace rtrim substr substring trim upper format avg count",
    "max min sum string_agg cume_dist dense_rank first_value lag last_value lead nth_value ntile",
    "percent_rank rank row_number cast coalesce nullif random date",
)

_POSTGRESQL_SCALARS = _words(
    # numbers
    "acosd asind atan2d atand cbrt cosd cot cotd div erf erfc factorial gamma gcd lcm lgamma min_scale",
    "random_normal scale sind tand to_hex to_bin to_oct trim_scale width_bucket greatest least numnode",
    # strings and bytes
    "ascii bit_length btrim casefold chr crc32 crc32c decode encode initcap left like lpad md5 normalize",
    "overlay parse_ident position quote_ident quote_literal quote_nullable regexp_count regexp_instr",
    "regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table",
    "regexp_substr repeat reverse right rpad sha224 sha256 sha384 sha512 split_part starts_with",
    "string_to_array string_to_table strpos to_ascii to_char to_number translate bit_count get_bit",
    "get_byte set_bit set_byte convert_from convert_to",
    # dates and times
    "age clock_timestamp date_add date_bin date_part date_subtract date_trunc extract isfinite justify_days",
    "justify_hours justify_interval make_date make_interval make_time make_timestamp make_timestamptz now",
    "statement_timestamp timeofday timezone to_date to_timestamp transaction_timestamp",
    # casts written as calls
    "text int2 int4 int8 float4 float8 bool",
    # arrays and ranges
    "array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position",
    "array_positions array_prepend array_remove array_replace array_reverse array_sample array_shuffle",
    "array_sort array_to_string array_upper cardinality trim_array unnest generate_series",
    "generate_subscripts isempty lower_inc lower_inf upper_inc upper_inf range_merge multirange int4range",
    "int8range numrange tsrange tstzrange daterange int4multirange int8multirange nummultirange",
    "tsmultirange tstzmultirange datemultirange",
    # identifiers and enumerations
    "gen_random_uuid uuidv4 uuidv7 uuid_extract_timestamp uuid_extract_version uuid_generate_v4",
    "enum_first enum_last enum_range",
    # network and geometry types
    "abbrev broadcast family host hostmask inet_merge inet_same_family masklen netmask network",
    "area center diameter height width radius npoints point box circle lseg path polygon",
    # any type
    "num_nonnulls num_nulls pg_column_size pg_typeof",
    # waits, but leaves nothing behind
    "pg_sleep pg_sleep_for pg_sleep_until",
)

_POSTGRESQL_JSON = _words(
    "array_to_json row_to_json to_json to_jsonb json json_array json_object json_scalar json_exists",
    "json_query json_value json_array_elements json_array_elements_text json_array_length",
    "json_build_array json_build_object json_each json_each_text json_extract_path json_extract_path_text",
    "json_object_keys json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_array_elements",
    "jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_concat",
    "jsonb_contained jsonb_contains jsonb_delete jsonb_delete_path jsonb_each jsonb_each_text",
    "jsonb_exists jsonb_exists_all jsonb_exists_any jsonb_extract_path jsonb_extract_path_text",
    "jsonb_insert jsonb_object jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz jsonb_path_match",
    "jsonb_path_match_tz jsonb_path_query jsonb_path_query_array jsonb_path_query_array_tz",
    "jsonb_path_query_first jsonb_path_query_first_tz jsonb_path_query_tz jsonb_pretty jsonb_set",
    "jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof",
)

_POSTGRESQL_AGGREGATES = _words(
    "any_value array_agg bit_and bit_or bit_xor bool_and bool_or every grouping range_agg",
    "range_intersect_agg json_agg json_agg_strict json_object_agg json_object_agg_strict",
    "json_object_agg_unique jsonb_agg jsonb_agg_strict jsonb_object_agg jsonb_object_agg_strict",
    "jsonb_object_agg_unique corr covar_pop covar_samp regr_avgx regr_avgy regr_count regr_intercept",
    "regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp var_pop var_samp",
    "variance mode percentile_cont percentile_disc",
)

_POSTGRESQL_SEARCH = _words(
    # full text; ts_stat and ts_rewrite run a query given as text, so they are not here
    "array_to_tsvector get_current_ts_config json_to_tsvector jsonb_to_tsvector phraseto_tsquery",
    "plainto_tsquery querytree setweight strip to_tsquery to_tsvector ts_delete ts_filter ts_headline",
    "ts_rank ts_rank_cd tsquery_phrase tsvector_to_array websearch_to_tsquery",
    # pg_trgm, unaccent, fuzzystrmatch; set_limit changes the session
    "similarity word_similarity strict_word_similarity show_trgm unaccent",
    "levenshtein levenshtein_less_equal soundex metaphone dmetaphone dmetaphone_alt daitch_mokotoff",
    # pgvector
    "binary_quantize cosine_distance hamming_distance inner_product jaccard_distance l1_distance",
    "l2_distance l2_norm l2_normalize subvector vector_dims vector_norm",
    # hstore and ltree
    "akeys avals hstore hstore_to_json hstore_to_jsonb skeys svals nlevel subltree subpath ltree2text",
    "text2ltree",
    # pgcrypto, reading side
    "crypt digest hmac",
)

_POSTGRESQL_GEOGRAPHY = _words(
    "st_area st_asbinary st_asewkb st_asewkt st_asgeojson st_astext st_azimuth st_boundary st_buffer",
    "st_centroid st_closestpoint st_contains st_covers st_coveredby st_crosses st_difference st_disjoint",
    "st_distance st_distancesphere st_dwithin st_envelope st_equals st_expand st_geogfromtext",
    "st_geogfromwkb st_geohash st_geomfromewkb st_geomfromewkt st_geomfromgeojson st_geomfromtext",
    "st_geomfromwkb st_geometrytype st_intersection st_intersects st_isempty st_isvalid st_length",
    "st_makeenvelope st_makeline st_makepoint st_makevalid st_numpoints st_overlaps st_perimeter st_point",
    "st_setsrid st_simplify st_srid st_touches st_transform st_union st_within st_x st_xmax st_xmin st_y",
    "st_ymax st_ymin st_z",
)

_POSTGRESQL_CATALOG = _words(
    "col_description current_database current_setting format_type",
    "obj_description pg_encoding_to_char pg_get_constraintdef pg_get_expr pg_get_functiondef",
    "pg_get_indexdef pg_get_serial_sequence pg_get_triggerdef pg_get_userbyid pg_get_viewdef",
    "pg_get_partkeydef pg_function_is_visible pg_table_is_visible pg_type_is_visible shobj_description",
    "to_regclass to_regnamespace to_regtype has_any_column_privilege has_column_privilege",
    "has_database_privilege has_schema_privilege has_table_privilege pg_has_role version pg_database_size",
    "pg_indexes_size pg_is_in_recovery pg_postmaster_start_time pg_relation_size pg_size_bytes",
    "pg_size_pretty pg_table_size pg_tablespace_size pg_total_relation_size",
)

POSTGRESQL_FUNCTIONS = frozenset().union(
    _COMMON_FUNCTIONS,
    _POSTGRESQL_SCALARS,
    _POSTGRESQL_JSON,
    _POSTGRESQL_AGGREGATES,
    _POSTGRESQL_SEARCH,
    _POSTGRESQL_GEOGRAPHY,
    _POSTGRESQL_CATALOG,
)

SQLITE_FUNCTIONS = _COMMON_FUNCTIONS | _words(
    "char glob hex if ifnull iif instr like likelihood likely log2 printf quote randomblob soundex",
    "sqlite_source_id sqlite_version typeof unhex unicode unlikely zeroblob",
    # dates and times
    "datetime julianday strftime time timediff unixepoch",
    # aggregates
    "group_concat median percentile percentile_cont percentile_disc total",
    # json
    "json json_array json_array_length json_each json_error_position json_extract json_group_array",
    "json_group_object json_insert json_object json_patch json_pretty json_quote json_remove json_replace",
    "json_set json_tree json_type json_valid jsonb jsonb_array jsonb_each jsonb_extract jsonb_group_array",
    "jsonb_group_object jsonb_insert jsonb_object jsonb_patch jsonb_remove jsonb_replace jsonb_set",
    "jsonb_tree",
    # full text (its other functions are commands), series
    "bm25 highlight snippet generate_series",
)

# --- types ----------------------------------------------------------------------------------------

POSTGRESQL_TYPES = _words(
    "bigint bit bool boolean bytea char character cidr date datemultirange daterange dec decimal",
    "float float4 float8 inet int int2 int4 int4multirange int4range int8 int8multirange int8range",
    "integer interval json jsonb jsonpath macaddr macaddr8 money name nchar numeric nummultirange",
    "numrange oid pg_lsn real regclass regcollation regconfig regdictionary regnamespace regoper",
    "regoperator regproc regprocedure regrole regtype smallint text tid time timestamp timestamptz timetz",
    "tsmultirange tsquery tsrange tstzmultirange tstzrange tsvector uuid varbit varchar xid xid8 xml box",
    "circle line lseg path point polygon bpchar cid citext geography geometry halfvec hstore lquery ltree",
    "ltxtquery sparsevec vector",
) | {"double precision", "character varying", "char varying", "nchar varying", "bit varying"}

SQLITE_TYPES = _words(
    "bigint blob bool boolean char character clob date datetime decimal double float int int2 int8",
    "integer json jsonb mediumint nchar numeric nvarchar real smallint text time timestamp tinyint uuid",
    "varbinary varchar",
) | {"double precision", "character varying"}

# --- operators ------------------------------------------------------------------------------------

POSTGRESQL_OPERATORS = _words(
    "+ - +- -+ * / ^ = < > <= >= <> != ~ ~* !~ !~* ~~ ~~* !~~ !~~* || | & # << >> |/ ||/ @ =>",
    # json, arrays, ranges, full text, geometry
    "@> <@ && @@ @@@ @? ? ?| ?& -> ->> #> #>> #- -|- &< &> <<= >>= <<| |>> &<| |&> ^@ ~=",
    ">^ <^ ?# ?- ?-| ?|| ## @-@",
    # pgvector, pg_trgm
    "<-> <#> <=> <+> <~> <<-> <->> <<<-> <->>> % <% <<% %> %>> %% <%% <<%% %%> %%>>",
)

SQLITE_OPERATORS = _words("+ - * / % = == != <> < > <= >= << >> & | ~ || -> ->>")

# --- keywords -------------------------------------------------------------------------------------

STATEMENTS = _words("select values with insert update delete merge replace")
"""What a statement may begin with, after parentheses."""

_PARENTHESIS = _words(
    "select distinct all on from where having and or not in when then else case using union intersect except",
    "limit group returning",
)

SQLITE_PARENTHESIS = _PARENTHESIS

POSTGRESQL_PARENTHESIS = _PARENTHESIS | _words(
    "any array asymmetric both default lateral leading offset only placing some symmetric to trailing",
    "variadic",
    "current_time current_timestamp localtime localtimestamp",
)
"""Keywords that may stand before ``(`` and that the dialect never takes for the name of a function there."""

OPERAND_FOLLOWS = (
    _PARENTHESIS
    | POSTGRESQL_PARENTHESIS
    | _words(
        "as between by cross cube escape exists filter first full glob groups ilike inner insert is join left",
        "like match",
        "materialized merge natural next outer over overlaps passing range recursive regexp right rollup row rows",
        "set sets similar value values with zone",
    )
) - _words("current_time current_timestamp localtime localtimestamp")
"""Words after which an operand may begin, so that a word and ``(`` there would be a call."""

JOIN_SIDES = _words("cross full inner left natural outer right")

CLAUSES = _words("select from where having window order limit offset fetch union intersect except values")

_REFUSED = _words(
    # begin another statement, or write where a query should stand
    "alter analyse analyze attach call copy create declare detach do drop execute explain grant insert",
    "into listen lock notify pragma prepare raise reindex replace revoke set table truncate unlisten",
    "update delete merge vacuum",
    # belong to one clause only
    "for returning conflict",
)

SQLITE_REFUSED = _REFUSED

POSTGRESQL_REFUSED = _REFUSED | _words(
    # reserved, and without a place in a query
    "authorization binary check column concurrently constraint deferrable foreign freeze initially primary",
    "references verbose uescape",
    # creates the session's schema for temporary tables where the search path begins with pg_temp
    "current_schema",
)
"""Words never let through as a name, except after a dot; the walk knows their proper places."""

# --- tokens ---------------------------------------------------------------------------------------

END = "\0"
"""Appended to every text as its last token; a text that contains it is refused before."""

_WORD = r"""[a-z_][a-z0-9_]*+(?![$'"]|&['"])"""  # a quote that touches would make it a prefixed literal
_QUOTED = r"""'[^']*'|"[^"]*\""""  # 'it''s' gives two tokens; the walk reads them as one operand
_NUMBER = r"\.?[0-9][0-9a-z_.$]*+"  # generous: is_number decides
_COMMENT = r"--[^\n\r\0]*+(?=\n|\r\n|\0)|/\*.*?\*/"
_STANDS_ALONE = r"""(?![a-z0-9_$'"(.])"""

_POSTGRESQL_PLACEHOLDER = rf"(?:%\([a-z0-9_]+\)[sbt]|%[sbt]|\$[0-9]++){_STANDS_ALONE}"
_POSTGRESQL_OPERATOR = r"(?!--|/\*)[-+*/<>=~!@#^&|?]"
_POSTGRESQL_TOKEN = (
    rf"{_POSTGRESQL_PLACEHOLDER}|(?:<<?%%?|%%?>>?|%%?)(?![-+*/<>=~!@#^&|?%a-z0-9_($])"
    rf"|(?:{_POSTGRESQL_OPERATOR})+(?:(?={_POSTGRESQL_PLACEHOLDER})|(?!%|{_POSTGRESQL_OPERATOR}))"
    r"|::|[()\[\],.;:]"
)
_SQLITE_TOKEN = (
    rf"\?[0-9]*+{_STANDS_ALONE}|[:@][a-z_][a-z0-9_]*+(?!:){_STANDS_ALONE}"
    r"|(?!--|/\*)(?:\|\||->>|->|==|!=|<>|<=|>=|<<|>>|[-+*/%=<>&|~])|[(),.;]"
)


_BACKSLASHES = "\\¥₩"
"""What reaches the server as a backslash; the last two do when the client speaks EUC_JP, SJIS or JOHAB."""


def _compile_lexer(specific: str) -> re.Pattern[str]:
    # Linear: a quantifier is possessive or ends its alternative, and the last alternative swallows the rest
    # of a text that does not fit. That one leaves the group empty, and "" is no token.
    known = rf"{_COMMENT}|{_WORD}|{_QUOTED}|{_NUMBER}|{specific}|{END}"
    return re.compile(rf"[ \t\n\r\f]*+(?:({known})|.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Grammar:
    """What differs between the dialect families."""

    lexer: re.Pattern[str]
    functions: frozenset[str]
    types: frozenset[str]
    operators: frozenset[str]
    parenthesis: frozenset[str]
    refused: frozenset[str]


POSTGRESQL = Grammar(
    lexer=_compile_lexer(_POSTGRESQL_TOKEN),
    functions=POSTGRESQL_FUNCTIONS,
    types=POSTGRESQL_TYPES,
    operators=POSTGRESQL_OPERATORS,
    parenthesis=POSTGRESQL_PARENTHESIS,
    refused=POSTGRESQL_REFUSED,
)
SQLITE = Grammar(
    lexer=_compile_lexer(_SQLITE_TOKEN),
    functions=SQLITE_FUNCTIONS,
    types=SQLITE_TYPES,
    operators=SQLITE_OPERATORS,
    parenthesis=SQLITE_PARENTHESIS,
    refused=SQLITE_REFUSED,
)
GRAMMARS: dict[str, Grammar] = {"postgresql": POSTGRESQL, "sqlite": SQLITE}


def split_text(sql: str, grammar: Grammar) -> list[str]:
    """The tokens of ``sql`` in lower case without comments; at least three ``END`` close the list.

    :raises UnknownTextError: a character, literal or comment the lexer does not take, or too many tokens.
    """
    text = _checked_text(sql)
    tokens: list[str] = grammar.lexer.findall(text + END)
    if "" in tokens or len(tokens) > MAX_TOKENS:
        raise UnknownTextError
    if grammar is SQLITE and "pragma_" in text:  # a pragma is a table too, and a table needs no parentheses
        raise UnknownTextError
    if grammar is POSTGRESQL and any(_hides_placeholder(token) for token in tokens if "%" in token):
        raise UnknownTextError
    if "--" in text or "/*" in text:
        tokens = _without_comments(tokens)
    return [*tokens, END, END]


def _checked_text(sql: str) -> str:
    if len(sql) > MAX_TEXT_BYTES or END in sql or any(mark in sql for mark in _BACKSLASHES):
        raise UnknownTextError
    try:
        raw = sql.encode()
    except UnicodeEncodeError:
        raise UnknownTextError from None
    if len(raw) > MAX_TEXT_BYTES:
        raise UnknownTextError
    return raw.lower().decode()


def lower_ascii(name: str) -> str:
    """``name`` with A to Z alone in lower case; ``str.lower`` would make a k of the Kelvin sign."""
    return name.encode(errors="surrogatepass").lower().decode(errors="surrogatepass")


def _without_comments(tokens: list[str]) -> list[str]:
    comments = [token for token in tokens if token.startswith(("--", "/*"))]
    if any("/*" in comment[1:] or not comment.isascii() for comment in comments):
        raise UnknownTextError  # PostgreSQL nests comments, SQLite does not
    return [token for token in tokens if not token.startswith(("--", "/*"))]


def _hides_placeholder(token: str) -> bool:
    """Whether quotes or a comment hold a ``%s``, which a driver that merges on the client would replace."""
    if token[0] not in "'\"-/":
        return False
    bare = token.replace("%%", "")
    return any(mark in bare for mark in ("%s", "%b", "%t", "%("))


def is_number(token: str) -> bool:
    return token.isdigit() or re.fullmatch(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[0-9]+)?", token) is not None


def is_name(token: str) -> bool:
    return token[0] in '"_' or token[0].isalpha()


def is_operand(token: str) -> bool:
    """A literal, number or placeholder; in SQLite, which has no typed literals, it need not know them all."""
    return token[0] in "'$0123456789" or (token[0] == "%" and token[-1] in "sbt")

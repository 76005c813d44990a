/*
 * The JSON reader: one pass of recursive descent. After an error it goes on behind the next comma,
 * line end or bracket of the same level, so that one run shows all problems of a file. The tree is
 * handed out only when there were none, or to a caller who wants to look for more in what is left:
 * not where brackets do not match, since nobody knows then which object a key was meant for.
 *
 * HJSON's multi-line and unquoted strings are refused on purpose: "lr: 1e-4 # note" would silently
 * be a string.
 */
#include "base/json.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 64, ERRORS_MAX = 50 };

struct parser {
    const char *at, *end;
    int line, column;
    int depth;
    const char *keys[DEPTH_MAX + 1]; /* the key whose value is read, per level; NULL in an array */
    size_t error_count;
    bool shapeless; /* brackets do not match */
    const struct zinf_json_options *options;
    struct zinf_error_list *errors;
};

static struct zinf_json *parse_value(struct parser *p);

static void fail(struct parser *p, int line, int column, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* "optimizer.params: ", or nothing at the top. */
static void path_text(const struct parser *p, char *out, size_t bytes)
{
    size_t used = 0;
    *out = '\0';
    for (int i = 0; i <= p->depth && used < bytes; i++)
        if (p->keys[i])
            used += (size_t)snprintf(out + used, bytes - used, "%s%s", used ? "." : "", p->keys[i]);
    if (used && used < bytes)
        snprintf(out + used, bytes - used, ": ");
}

static void fail(struct parser *p, int line, int column, const char *format, ...)
{
    struct zinf_error error;
    char text[sizeof error.text], path[256];
    va_list args;
    if (p->error_count++ >= ERRORS_MAX) {
        p->at = p->end; /* no such file is mended line by line */
        p->shapeless = true;
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    path_text(p, path, sizeof path);
    zinf_error_at(&error, p->options->status,
                  (struct zinf_text_place){p->options->file, line, column}, "%s%s", path, text);
    zinf_error_list_add(p->errors, &error);
}

static int peek(const struct parser *p)
{
    return p->at < p->end ? (unsigned char)*p->at : -1;
}

static bool starts(const struct parser *p, const char *text)
{
    size_t length = strlen(text);
    return (size_t)(p->end - p->at) >= length && !memcmp(p->at, text, length);
}

/* Columns count characters: continuation bytes of UTF-8 do not move them. */
static void advance(struct parser *p, size_t bytes)
{
    for (; bytes && p->at < p->end; bytes--, p->at++) {
        if (*p->at == '\n') {
            p->line++;
            p->column = 1;
        } else if (((unsigned char)*p->at & 0xc0) != 0x80) {
            p->column++;
        }
    }
}

static void skip_block_comment(struct parser *p)
{
    int line = p->line, column = p->column;
    advance(p, 2);
    while (p->at < p->end && !starts(p, "*/"))
        advance(p, 1);
    if (p->at >= p->end)
        fail(p, line, column, "this comment is never closed; */ is missing");
    advance(p, 2);
}

/* White space and comments. Returns true when a line end was passed. */
static bool skip_space(struct parser *p)
{
    int line = p->line;
    for (;;) {
        int c = peek(p);
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
            advance(p, 1);
        else if (!p->options->strict && (c == '#' || starts(p, "//")))
            while (p->at < p->end && peek(p) != '\n')
                advance(p, 1);
        else if (!p->options->strict && starts(p, "/*"))
            skip_block_comment(p);
        else
            return p->line != line;
    }
}

/* To the next place where a member may begin or an object end, over nested brackets and strings. */
static void recover(struct parser *p)
{
    int nested = 0;
    for (; p->at < p->end; advance(p, 1)) {
        int c = peek(p);
        if (c == '"') {
            for (advance(p, 1); p->at < p->end && peek(p) != '"' && peek(p) != '\n'; advance(p, 1))
                if (peek(p) == '\\')
                    advance(p, 1);
            if (peek(p) != '"')
                continue;
        } else if (c == '{' || c == '[') {
            nested++;
        } else if ((c == '}' || c == ']') && nested-- == 0) {
            return;
        } else if (nested == 0 && (c == ',' || c == '\n')) {
            return;
        }
    }
}

static int hex_digits(struct parser *p, uint32_t *out)
{
    *out = 0;
    if (p->end - p->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)p->at[i];
        if (!isxdigit(c))
            return -1;
        *out = *out * 16 + (uint32_t)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
    }
    advance(p, 4);
    return 0;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Behind "\u": one code point, from a pair of surrogates if need be. */
static int unicode_escape(struct parser *p, uint32_t *out)
{
    uint32_t low;
    if (hex_digits(p, out) || *out == 0)
        return -1;
    if (*out < 0xd800 || *out > 0xdfff)
        return 0;
    if (*out > 0xdbff || !starts(p, "\\u"))
        return -1;
    advance(p, 2);
    if (hex_digits(p, &low) || low < 0xdc00 || low > 0xdfff)
        return -1;
    *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
    return 0;
}

/* One escape sequence, the backslash already passed; bytes written, 0 = wrong. */
static size_t escape(struct parser *p, char *out)
{
    static const char names[] = "\"\\/bfnrt'", values[] = "\"\\/\b\f\n\r\t'";
    int c = peek(p);
    uint32_t code;
    advance(p, 1);
    if (c == 'u')
        return unicode_escape(p, &code) ? 0 : put_utf8(out, code);
    const char *found = c > 0 ? strchr(names, c) : NULL;
    if (!found || (c == '\'' && p->options->strict))
        return 0;
    *out = values[found - names];
    return 1;
}

/* Bytes of the UTF-8 character at `at`, 0 when it is none (overlong forms and surrogates included).
 * RFC 3629. */
static size_t utf8_length(const unsigned char *at, size_t room)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = at[0] < 0x80       ? 1
                    : at[0] >> 5 == 6  ? 2
                    : at[0] >> 4 == 14 ? 3
                    : at[0] >> 3 == 30 ? 4
                                       : 0;
    if (length <= 1)
        return length;
    uint32_t code = at[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if (i >= room || at[i] >> 6 != 2)
            return 0;
        code = code << 6 | (at[i] & 63);
    }
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    return code < smallest[length] || code > 0x10ffff || surrogate ? 0 : length;
}

static void bad_character(struct parser *p, int c, char quote, int line, int column)
{
    if (c < 0 || c == '\n')
        fail(p, line, column, "this string is not closed on its line; a %c is missing", quote);
    else if (c < 0x20)
        fail(p, p->line, p->column, "control character in a string; write it as \\u%04x", c);
    else
        fail(p, p->line, p->column, "byte 0x%02x is not UTF-8; save the file as UTF-8", c);
}

/* A quoted string; NULL after an error. */
static char *parse_string(struct parser *p)
{
    int line = p->line, column = p->column;
    char quote = *p->at;
    if (starts(p, "'''")) {
        fail(p, line, column,
             "multi-line strings (''') are not read; write one \"...\" with \\n in it");
        advance(p, 3);
        while (p->at < p->end && !starts(p, "'''"))
            advance(p, 1);
        advance(p, 3);
        return NULL;
    }
    advance(p, 1);
    size_t room = 16, count = 0;
    char *out = zinf_alloc(room);
    for (;;) {
        int c = peek(p);
        size_t length =
            c >= 0 ? utf8_length((const unsigned char *)p->at, (size_t)(p->end - p->at)) : 0;
        if (count + 8 > room)
            out = zinf_realloc(out, room *= 2);
        if (c == quote) {
            advance(p, 1);
            out[count] = '\0';
            return out;
        }
        if (c == '\\') {
            int escape_line = p->line, escape_column = p->column;
            advance(p, 1);
            length = escape(p, out + count);
            if (!length) {
                fail(p, escape_line, escape_column,
                     "this escape sequence is not one of JSON; right are \\\" "
                     "\\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX (not \\u0000, surrogates in pairs)");
                break;
            }
        } else if (c < 0x20 || !length) {
            bad_character(p, c, quote, line, column);
            break;
        } else {
            memcpy(out + count, p->at, length);
            advance(p, length);
        }
        count += length;
    }
    free(out);
    return NULL;
}

/* Letters, digits and signs: what a number, a literal or a forgotten pair of quotes is made of. */
static size_t word_length(const struct parser *p)
{
    const char *c = p->at;
    for (; c < p->end && *c; c++) {
        bool comment = *c == '/' && c + 1 < p->end && (c[1] == '/' || c[1] == '*');
        bool part =
            isalnum((unsigned char)*c) || (unsigned char)*c >= 0x80 || strchr("+-._$/\\~@%*", *c);
        if (comment || !part)
            break;
    }
    return (size_t)(c - p->at);
}

/* JSON's grammar of numbers: -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)? */
static bool is_number(const char *text, bool *integer)
{
    const char *c = text + (*text == '-');
    size_t digits = strspn(c, "0123456789");
    if (!digits || (digits > 1 && *c == '0'))
        return false;
    c += digits;
    *integer = *c == '\0';
    if (*c == '.') {
        digits = strspn(++c, "0123456789");
        if (!digits)
            return false;
        c += digits;
    }
    if (*c == 'e' || *c == 'E') {
        c++;
        c += *c == '+' || *c == '-';
        digits = strspn(c, "0123456789");
        if (!digits)
            return false;
        c += digits;
    }
    return *c == '\0';
}

static struct zinf_json *number_value(struct parser *p, const char *word, bool integer, int column)
{
    double number = strtod(word, NULL);
    errno = 0;
    long long whole = strtoll(word, NULL, 10);
    if (integer && !errno)
        return zinf_json_new_integer(whole);
    if (isfinite(number))
        return zinf_json_new_number(number);
    fail(p, p->line, column, "the number %s is too large for a double", word);
    return NULL;
}

static void fail_word(struct parser *p, const char *word, int column)
{
    static const char *const python[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"}};
    for (int i = 0; i < 3; i++)
        if (!strcmp(word, python[i][0])) {
            fail(p, p->line, column, "%s is Python; JSON writes %s", word, python[i][1]);
            return;
        }
    if (isdigit((unsigned char)*word) || strchr("+-.", *word))
        fail(p, p->line, column,
             "%s is not a JSON number; right are e.g. 12, -0.5, 5e8, and text in quotes", word);
    else
        fail(p, p->line, column, "unquoted strings are not read; write \"%s\"", word);
}

static struct zinf_json *parse_word(struct parser *p)
{
    int column = p->column;
    size_t length = word_length(p);
    char *word = zinf_alloc(length + 1);
    struct zinf_json *value = NULL;
    bool integer;
    memcpy(word, p->at, length);
    advance(p, length);
    if (!strcmp(word, "true") || !strcmp(word, "false"))
        value = zinf_json_new_bool(*word == 't');
    else if (!strcmp(word, "null"))
        value = zinf_json_new(ZINF_JSON_NULL);
    else if (is_number(word, &integer))
        value = number_value(p, word, integer, column);
    else
        fail_word(p, word, column);
    free(word);
    return value;
}

static char *parse_key(struct parser *p)
{
    int c = peek(p);
    if (c == '"' || (c == '\'' && !p->options->strict))
        return parse_string(p);
    size_t length = word_length(p);
    if (!length || p->options->strict) {
        fail(p, p->line, p->column, "a key in double quotes should stand here");
        return NULL;
    }
    char *key = zinf_alloc(length + 1);
    memcpy(key, p->at, length);
    advance(p, length);
    return key;
}

static int parse_member(struct parser *p, struct zinf_json *object)
{
    int line = p->line, column = p->column;
    char *key = parse_key(p);
    if (!key)
        return -1;
    skip_space(p);
    if (peek(p) != ':') {
        fail(p, line, column, "key \"%s\" has no ':' and value behind it", key);
        free(key);
        return -1;
    }
    advance(p, 1);
    skip_space(p);
    p->keys[p->depth] = key;
    struct zinf_json *value = parse_value(p);
    p->keys[p->depth] = NULL;
    if (!value) {
        free(key);
        return -1;
    }
    zinf_json_append_member(object, key, line, column, value);
    return 0;
}

static int parse_element(struct parser *p, struct zinf_json *array)
{
    struct zinf_json *value = parse_value(p);
    if (value)
        zinf_json_append(array, value);
    return value ? 0 : -1;
}

/* Behind an error: go on with the next member, whatever stands between. */
static void resume(struct parser *p)
{
    recover(p);
    skip_space(p);
    if (peek(p) == ',')
        advance(p, 1);
    skip_space(p);
}

/* Behind a member: its comma, or what makes one unnecessary. */
static void separator(struct parser *p, int close)
{
    bool strict = p->options->strict, line_end = skip_space(p);
    int c = peek(p), line = p->line, column = p->column;
    if (c == ',') {
        advance(p, 1);
        skip_space(p);
        if (strict && peek(p) == close)
            fail(p, line, column, "a comma before '%c' is not JSON", close);
    } else if (c != '}' && c != ']' && c >= 0 && (strict || !line_end)) {
        fail(p, line, column, "',' or '%c' should stand here", close);
        resume(p);
    }
}

static void parse_members(struct parser *p, struct zinf_json *value, int close)
{
    int line = p->line, column = p->column;
    advance(p, 1);
    skip_space(p);
    for (;;) {
        int c = peek(p);
        if (c < 0) {
            p->shapeless = true;
            fail(p, line, column, "this '%c' is never closed; a '%c' is missing",
                 close == '}' ? '{' : '[', close);
            return;
        }
        if (c == '}' || c == ']') {
            p->shapeless |= c != close;
            if (c != close)
                fail(p, p->line, p->column,
                     "'%c' closes the '%c' of line %d, column %d; right is '%c'", c,
                     close == '}' ? '{' : '[', line, column, close);
            advance(p, 1);
            return;
        }
        if (close == '}' ? parse_member(p, value) : parse_element(p, value))
            resume(p);
        else
            separator(p, close);
    }
}

static int by_key(const void *a, const void *b, void *context)
{
    const struct zinf_json *object = context;
    size_t i = *(const size_t *)a, j = *(const size_t *)b;
    int order = strcmp(object->keys[i], object->keys[j]);
    return order ? order : (i > j) - (i < j);
}

/* Who goes on with a partial tree sees each key once, the last one. `doubles` are later members. */
static void remove_doubles(struct zinf_json *object, const size_t *doubles, size_t count)
{
    char **names = zinf_alloc((count + 1) * sizeof *names);
    for (size_t i = 0; i < count; i++)
        names[i] = zinf_strdup(object->keys[doubles[i]]);
    for (size_t i = 0; i < count; i++) {
        zinf_json_remove(object, names[i]); /* the first of that name */
        free(names[i]);
    }
    free(names);
}

/* Sorted, because a tokenizer's vocabulary is one object of 100000 keys. */
static void check_duplicates(struct parser *p, struct zinf_json *object)
{
    size_t *order = zinf_alloc(object->count * sizeof *order);
    for (size_t i = 0; i < object->count; i++)
        order[i] = i;
    qsort_r(order, object->count, sizeof *order, by_key, object);
    size_t doubles = 0;
    for (size_t i = 1; i < object->count; i++) {
        size_t first = order[i - 1], again = order[i];
        if (strcmp(object->keys[first], object->keys[again]) != 0)
            continue;
        fail(p, object->key_lines[again], object->key_columns[again],
             "key \"%s\" stands twice (first in line %d); keep one", object->keys[again],
             object->key_lines[first]);
        order[doubles++] = again;
    }
    remove_doubles(object, order, doubles);
    free(order);
}

static struct zinf_json *parse_container(struct parser *p, int open)
{
    if (p->depth >= DEPTH_MAX) {
        fail(p, p->line, p->column, "nested deeper than %d levels", DEPTH_MAX);
        return NULL;
    }
    struct zinf_json *value = zinf_json_new(open == '{' ? ZINF_JSON_OBJECT : ZINF_JSON_ARRAY);
    p->depth++;
    parse_members(p, value, open == '{' ? '}' : ']');
    p->depth--;
    if (open == '{')
        check_duplicates(p, value);
    return value;
}

static struct zinf_json *parse_value(struct parser *p)
{
    int line = p->line, column = p->column, c = peek(p);
    struct zinf_json *value = NULL;
    char *string;
    if (c == '{' || c == '[') {
        value = parse_container(p, c);
    } else if (c == '"' || (c == '\'' && !p->options->strict)) {
        string = parse_string(p);
        if (string) {
            value = zinf_json_new(ZINF_JSON_NULL);
            value->type = ZINF_JSON_STRING;
            value->string = string;
        }
    } else if (c > 0 && word_length(p)) {
        value = parse_word(p);
    } else if (c < 0) {
        p->shapeless = true;
        fail(p, line, column, "the text ends where a value should stand");
    } else {
        fail(p, line, column, "a value should stand here, not '%c'", c);
    }
    if (value) {
        value->line = line;
        value->column = column;
    }
    return value;
}

int zinf_json_parse(struct zinf_json **value, const char *text, size_t bytes,
                    const struct zinf_json_options *options, struct zinf_error_list *errors)
{
    struct parser p = {.at = text, .end = text + bytes, .line = 1, .column = 1};
    p.options = options;
    p.errors = errors;
    *value = NULL;
    if (starts(&p, "\xef\xbb\xbf"))
        p.at += 3;
    skip_space(&p);
    struct zinf_json *root = parse_value(&p);
    if (root) {
        skip_space(&p);
        if (p.at < p.end)
            fail(&p, p.line, p.column, "there is text behind the end of the JSON value");
    }
    if (p.error_count && (p.shapeless || !options->partial))
        zinf_json_free(root);
    else
        *value = root;
    return p.error_count ? options->status : 0;
}

/*
 * The text of a JSON tree. Arrays of plain values stay on one line when pretty: [0.9, 0.999].
 */
#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
    char *text;
    size_t count, room;
};

static void put(struct buffer *out, const char *text, size_t bytes)
{
    if (out->count + bytes + 1 > out->room) {
        out->room = 2 * (out->count + bytes + 1);
        out->text = zinf_realloc(out->text, out->room);
    }
    memcpy(out->text + out->count, text, bytes);
    out->count += bytes;
    out->text[out->count] = '\0';
}

static void put_text(struct buffer *out, const char *text)
{
    put(out, text, strlen(text));
}

static void put_string(struct buffer *out, const char *string)
{
    put(out, "\"", 1);
    for (const char *c = string; *c; c++) {
        const char *special = "\"\\\n\r\t\b\f", *names = "\"\\nrtbf", *found = strchr(special, *c);
        char escape[8];
        if (found)
            put(out, (char[]){'\\', names[found - special]}, 2);
        else if ((unsigned char)*c < 0x20 || *c == 0x7f)
            put(out, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", *c));
        else
            put(out, c, 1);
    }
    put(out, "\"", 1);
}

/*
 * 15 digits are always exact to print, 17 always exact to read back. A whole number keeps its ".0",
 * as Python writes it: readers that tell 1.0 from 1 (transformers 5 checks the types of
 * config.json) get back what was read.
 */
static void put_number(struct buffer *out, double number)
{
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    put_text(out, text);
    if (!strpbrk(text, ".en"))
        put_text(out, ".0");
}

static void put_line(struct buffer *out, int indent, int level)
{
    put(out, "\n", 1);
    for (int i = 0; i < indent * level; i++)
        put(out, " ", 1);
}

static bool is_flat(const struct zinf_json *value)
{
    if (value->type == ZINF_JSON_OBJECT)
        return value->count == 0;
    for (size_t i = 0; i < value->count; i++)
        if (value->members[i]->type >= ZINF_JSON_ARRAY)
            return false;
    return true;
}

static void put_value(struct buffer *out, const struct zinf_json *value, int indent, int level);

static void put_members(struct buffer *out, const struct zinf_json *value, int indent, int level)
{
    bool object = value->type == ZINF_JSON_OBJECT, lines = indent >= 0 && !is_flat(value);
    put(out, object ? "{" : "[", 1);
    for (size_t i = 0; i < value->count; i++) {
        if (i)
            put_text(out, lines ? "," : ", ");
        if (lines)
            put_line(out, indent, level + 1);
        if (object) {
            put_string(out, value->keys[i]);
            put(out, ": ", 2);
        }
        put_value(out, value->members[i], indent, level + 1);
    }
    if (lines)
        put_line(out, indent, level);
    put(out, object ? "}" : "]", 1);
}

static void put_value(struct buffer *out, const struct zinf_json *value, int indent, int level)
{
    char text[32];
    switch (value->type) {
    case ZINF_JSON_NULL:
        put_text(out, "null");
        break;
    case ZINF_JSON_BOOL:
        put_text(out, value->boolean ? "true" : "false");
        break;
    case ZINF_JSON_INTEGER:
        snprintf(text, sizeof text, "%" PRId64, value->integer);
        put_text(out, text);
        break;
    case ZINF_JSON_NUMBER:
        put_number(out, value->number);
        break;
    case ZINF_JSON_STRING:
        put_string(out, value->string);
        break;
    default:
        put_members(out, value, indent, level);
    }
}

char *zinf_json_print(const struct zinf_json *value, int indent)
{
    struct buffer out = {0};
    put_value(&out, value, indent, 0);
    return out.text;
}

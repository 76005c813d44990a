// The JSON reader: what it reads, what it refuses and where, that one run finds all problems, and
// that print and parse are inverse.
#include "base/json_diff.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <unistd.h>
#include <vector>

namespace
{
struct Parsed {
    zinf_json *value = nullptr;
    zinf_error_list errors = {};
    int status;
    Parsed(const std::string &text, bool strict = false)
    {
        zinf_json_options options = {"t.json", strict, ZINF_E_USAGE, false};
        status = zinf_json_parse(&value, text.data(), text.size(), &options, &errors);
        EXPECT_EQ(status == 0, value != nullptr);
        EXPECT_EQ(status == 0, errors.count == 0) << text;
    }
    ~Parsed()
    {
        zinf_json_free(value);
        zinf_error_list_release(&errors);
    }
    // "line:column text" of error i
    std::string error(size_t i) const
    {
        if (i >= errors.count)
            return "none";
        char line[2048];
        zinf_error_print(&errors.items[i], line, sizeof line);
        return line;
    }
    std::string print(int indent = -1) const
    {
        char *text = zinf_json_print(value, indent);
        std::string copy = text;
        free(text);
        return copy;
    }
};

TEST(Json, ReadsEveryKindOfValueWithItsPlace)
{
    Parsed p("{\n  \"a\": 12,\n  \"b\": [true, null, -0.5e1, \"x\"],\n\t\"c\": {}\n}", true);
    ASSERT_EQ(p.status, 0);
    zinf_json *b = zinf_json_get(p.value, "b");
    ASSERT_EQ(b->count, 4u);
    EXPECT_EQ(zinf_json_integer(p.value, "a", 0), 12);
    EXPECT_EQ(zinf_json_number(p.value, "a", 0), 12.0);
    EXPECT_TRUE(b->members[0]->boolean);
    EXPECT_EQ(b->members[1]->type, ZINF_JSON_NULL);
    EXPECT_EQ(b->members[2]->number, -5.0);
    EXPECT_EQ(b->members[2]->type, ZINF_JSON_NUMBER);
    EXPECT_STREQ(b->members[3]->string, "x");
    EXPECT_EQ(b->line, 3);
    EXPECT_EQ(b->column, 8);
    EXPECT_EQ(b->members[2]->column, 21);
    EXPECT_EQ(p.value->key_lines[2], 4);
    EXPECT_EQ(p.value->key_columns[2], 2);
}

TEST(Json, ColumnsCountCharactersNotBytes)
{
    Parsed p("{\"\xc3\xa4\xe2\x82\xac\": \"\xf0\x9f\x98\x80\", \"b\": 1}");
    ASSERT_EQ(p.status, 0);
    EXPECT_EQ(p.value->key_columns[1], 13);
}

TEST(Json, FreedomsOfHjsonAreReadAndStrictRefusesEach)
{
    const char *texts[] = {
        "{\"a\": 1, // note\n \"b\": 2}",
        "{\"a\": 1, # note\n \"b\": 2}",
        "{\"a\": 1, /* no\nte */ \"b\": 2}",
        "{\"a\": 1\n \"b\": 2}",
        "{\"a\": 1, \"b\": 2,}",
        "{a: 1, \"b\": 2}",
        "{'a': 1, \"b\": 2}",
        "{\"a\": 1//x\n\"b\":2}",
        "{\"a\": 1/*x*/,\"b\":2}",
    };
    for (const char *text : texts) {
        Parsed lenient(text);
        ASSERT_EQ(lenient.status, 0) << text << lenient.error(0);
        EXPECT_EQ(lenient.print(), "{\"a\": 1, \"b\": 2}");
        Parsed strict(text, true);
        EXPECT_EQ(strict.status, ZINF_E_USAGE) << text;
    }
    Parsed array("[1\n2\n3,]");
    EXPECT_EQ(array.print(), "[1, 2, 3]");
}

TEST(Json, EachMistakeHasOneErrorAtItsPlace)
{
    struct {
        const char *text, *error;
    } cases[] = {
        {"{\"a\": cpu}", "t.json:1:7: a: unquoted strings are not read; write \"cpu\""},
        {"{\"a\": True}", "t.json:1:7: a: True is Python; JSON writes true"},
        {"{\"a\": '''x'''}", "t.json:1:7: a: multi-line strings"},
        {"{\"a\": '''x\n y, z: {\n'''\n}", "t.json:1:7: a: multi-line strings"},
        {"{\"a\": 01}", "t.json:1:7: a: 01 is not a JSON number"},
        {"{\"a\": .5}", "t.json:1:7: a: .5 is not a JSON number"},
        {"{\"a\": 1.}", "t.json:1:7: a: 1. is not"},
        {"{\"a\": 1e}", "t.json:1:7: a: 1e is not"},
        {"{\"a\": +1}", "t.json:1:7: a: +1 is not"},
        {"{\"a\": 0x10}", "t.json:1:7: a: 0x10 is not"},
        {"{\"a\": 1e999}", "t.json:1:7: a: the number 1e999 is too large"},
        {"{\"a\": NaN}", "t.json:1:7: a: unquoted strings"},
        {"{\"a\" 1}", "t.json:1:2: key \"a\" has no ':'"},
        {"{\"a\": 1 \"b\": 2}", "t.json:1:9: ',' or '}' should stand here"},
        {"{\"a\": }", "t.json:1:7: a: a value should stand here, not '}'"},
        {"{\"a\": 1", "t.json:1:1: this '{' is never closed"},
        {"{\"a\": [1}", "t.json:1:9: a: '}' closes the '['"},
        {"{\"a\": 1} x", "t.json:1:10: there is text behind the end"},
        {"{\"a\": \"x\n}", "t.json:1:7: a: this string is not closed"},
        {"{\"a\": \"\\q\"}", "t.json:1:8: a: this escape sequence"},
        {"{\"a\": \"\\ud800\"}", "t.json:1:8: a: this escape sequence"},
        {"{\"a\": \"\\u0000\"}", "t.json:1:8: a: this escape sequence"},
        {"{\"a\": \"\t\"}", "t.json:1:8: a: control character in a string; write it as \\u0009"},
        {"{\"a\": \"\xff\"}", "t.json:1:8: a: byte 0xff is not UTF-8"},
        {"{\"a\": \"\xc0\x80\"}", "t.json:1:8: a: byte 0xc0 is not UTF-8"},
        {"{\"a\": \"\xed\xa0\x80\"}", "t.json:1:8: a: byte 0xed is not UTF-8"},
        {"{\"a\": 1,\n \"b\": 2, \"a\": 3}",
         "t.json:2:10: key \"a\" stands twice (first in line 1)"},
        {"{\"a\": 1 /* x", "t.json:1:9: this comment is never closed"},
        {"", "t.json:1:1: the text ends where a value should stand"},
    };
    for (auto &c : cases) {
        Parsed p(c.text);
        EXPECT_EQ(p.error(0).substr(0, std::string(c.error).size()), c.error) << c.text;
        EXPECT_LE(p.errors.count, 2u) << c.text << p.error(2);
    }
}

TEST(Json, AllProblemsOfAFileAreFoundAtOnce)
{
    Parsed p("{\n  \"a\": cpu,\n  \"b\": 01,\n  \"c\": {\"x\": True, \"y\": 1},\n  \"d\": [1, "
             "oops, 3],\n  \"e\": \"open\n  \"b\": 2\n}");
    ASSERT_EQ(p.errors.count, 5u);
    int lines[] = {2, 3, 4, 5, 6};
    for (int i = 0; i < 5; i++)
        EXPECT_EQ(p.errors.items[i].line, lines[i]) << p.error(i);
}

TEST(Json, GarbageEndsAfterABoundedNumberOfErrors)
{
    std::string text;
    for (int i = 0; i < 10000; i++)
        text += "] } , : @ \n";
    Parsed p("{" + text);
    EXPECT_GE(p.errors.count, 1u);
    EXPECT_LE(p.errors.count, 50u);
}

TEST(Json, DepthEndsAtSixtyFour)
{
    EXPECT_EQ(Parsed(std::string(64, '[') + std::string(64, ']')).status, 0);
    Parsed deep(std::string(65, '[') + std::string(65, ']'));
    EXPECT_NE(deep.error(0).find("deeper than 64"), std::string::npos);
    EXPECT_NE(Parsed(std::string(100000, '[')).status, 0);
}

TEST(Json, IntegersAreThoseWithoutPointThatFit)
{
    Parsed p("[9223372036854775807, -9223372036854775808, 9223372036854775808, 1.0, 5e8, -0]");
    ASSERT_EQ(p.status, 0);
    zinf_json **m = p.value->members;
    EXPECT_EQ(m[0]->integer, INT64_MAX);
    EXPECT_EQ(m[1]->integer, INT64_MIN);
    EXPECT_EQ(m[2]->type, ZINF_JSON_NUMBER);
    EXPECT_EQ(m[3]->type, ZINF_JSON_NUMBER);
    EXPECT_EQ(m[4]->number, 5e8);
    EXPECT_EQ(m[5]->type, ZINF_JSON_INTEGER);
}

TEST(Json, EscapesGiveTheirCharacters)
{
    Parsed p("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\u20ac\\ud83d\\ude00\"", true);
    ASSERT_EQ(p.status, 0);
    EXPECT_STREQ(p.value->string, "\"\\/\b\f\n\r\t\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    Parsed again(p.print(), true);
    EXPECT_STREQ(again.value->string, p.value->string);
}

TEST(Json, PrintedNumbersReadBackToTheSameDoubleInTheShortestForm)
{
    EXPECT_EQ(Parsed("[0.1, 5e-5, 0.9, 1e300, 2e-5]").print(), "[0.1, 5e-05, 0.9, 1e+300, 2e-05]");
    EXPECT_EQ(Parsed("[10000.0, 10000, 0.0, -0.0, 1e3]").print(),
              "[10000.0, 10000, 0.0, -0.0, 1000.0]");
    uint64_t state = 1;
    for (int i = 0; i < 20000; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        double number;
        memcpy(&number, &state, 8);
        if (!std::isfinite(number))
            continue;
        zinf_json *value = zinf_json_new_number(number);
        char *text = zinf_json_print(value, -1);
        EXPECT_EQ(strtod(text, nullptr), number) << text;
        free(text);
        zinf_json_free(value);
    }
}

TEST(Json, PrettyPrintIsReadableAndReadsBack)
{
    const char *text =
        "{\n  \"a\": [0.9, 0.999],\n  \"b\": {\n    \"c\": null\n  },\n  \"d\": {},\n"
        "  \"e\": [\n    {\n      \"f\": 1\n    }\n  ]\n}";
    EXPECT_EQ(Parsed(text).print(2), text);
}

TEST(Json, NotFiniteNumbersPrintAsNull)
{
    zinf_json *value = zinf_json_new_number(NAN);
    EXPECT_EQ(value->type, ZINF_JSON_NULL);
    zinf_json_free(value);
}

TEST(Json, TreesAreBuiltChangedAndCopied)
{
    zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    for (int i = 0; i < 20; i++)
        zinf_json_set(object, std::to_string(i).c_str(), zinf_json_new_integer(i));
    zinf_json_set(object, "7", zinf_json_new_string("seven"));
    for (int i = 0; i < 20; i += 2)
        zinf_json_remove(object, std::to_string(i).c_str());
    zinf_json_remove(object, "not there");
    zinf_json *array = zinf_json_new(ZINF_JSON_ARRAY);
    zinf_json_append(array, zinf_json_new_bool(true));
    zinf_json_set(object, "list", array);
    zinf_json *copy = zinf_json_copy(object);
    zinf_json_set(object, "7", zinf_json_new_integer(0));
    EXPECT_EQ(copy->count, 11u);
    EXPECT_STREQ(zinf_json_string(copy, "7", ""), "seven");
    EXPECT_EQ(zinf_json_integer(copy, "19", 0), 19);
    EXPECT_EQ(zinf_json_get(copy, "2"), nullptr);
    EXPECT_EQ(zinf_json_get(copy, "list")->count, 1u);
    zinf_json_free(object);
    zinf_json_free(copy);
}

TEST(Json, PathsWalkObjectsAndDefaultsStandForWhatIsAbsent)
{
    Parsed p("{\"a\": {\"b\": {\"c\": 3}}, \"s\": \"x\"}");
    EXPECT_EQ(zinf_json_path(p.value, "a.b.c")->integer, 3);
    EXPECT_EQ(zinf_json_path(p.value, "a.b.d"), nullptr);
    EXPECT_EQ(zinf_json_path(p.value, "a.b.c.d"), nullptr);
    EXPECT_EQ(zinf_json_path(nullptr, "a"), nullptr);
    EXPECT_EQ(zinf_json_integer(p.value, "s", 5), 5) << "another type counts as absent";
    EXPECT_TRUE(zinf_json_bool(p.value, "none", true));
    EXPECT_EQ(zinf_json_number(nullptr, "x", 1.5), 1.5);
}

TEST(Json, FilesThatCannotBeReadSaySo)
{
    zinf_json *value;
    zinf_error_list errors = {};
    zinf_json_options options = {nullptr, false, ZINF_E_DATA, false};
    EXPECT_EQ(zinf_json_read(&value, "/nonexistent/x.json", &options, &errors), ZINF_E_DATA);
    EXPECT_EQ(zinf_json_read(&value, "/tmp", &options, &errors), ZINF_E_DATA);
    ASSERT_EQ(errors.count, 2u);
    EXPECT_STREQ(errors.items[0].text,
                 "/nonexistent/x.json: cannot be read: No such file or directory");
    EXPECT_STREQ(errors.items[1].text, "/tmp: cannot be read: Is a directory");
    zinf_error_list_release(&errors);
}

TEST(Json, AFileIsReadWithItsNameInMessages)
{
    char path[] = "/tmp/zinf_json_XXXXXX";
    int fd = mkstemp(path);
    std::string text = "\xef\xbb\xbf{\"a\": \"" + std::string(200000, 'x') + "\",\n \"b\": }";
    ASSERT_EQ(write(fd, text.data(), text.size()), (ssize_t)text.size());
    close(fd);
    zinf_json *value;
    zinf_error_list errors = {};
    zinf_json_options options = {nullptr, true, ZINF_E_DATA, false};
    EXPECT_EQ(zinf_json_read(&value, path, &options, &errors), ZINF_E_DATA);
    ASSERT_EQ(errors.count, 1u);
    EXPECT_STREQ(errors.items[0].file, path);
    EXPECT_EQ(errors.items[0].line, 2);
    zinf_error_list_release(&errors);
    unlink(path);
}

TEST(Json, AFileInUtf16SaysSo)
{
    for (std::string text : {std::string("\xff\xfe{\0}\0", 6), std::string("\xfe\xff\0{\0}", 6)}) {
        char path[] = "/tmp/zinf_json_XXXXXX";
        int fd = mkstemp(path);
        ASSERT_EQ(write(fd, text.data(), text.size()), (ssize_t)text.size());
        close(fd);
        zinf_json *value;
        zinf_error_list errors = {};
        zinf_json_options options = {nullptr, false, ZINF_E_USAGE, true};
        EXPECT_EQ(zinf_json_read(&value, path, &options, &errors), ZINF_E_USAGE);
        EXPECT_EQ(value, nullptr);
        ASSERT_EQ(errors.count, 1u);
        EXPECT_EQ(errors.items[0].text, std::string(path) + ": is UTF-16; save it as UTF-8");
        zinf_error_list_release(&errors);
        unlink(path);
    }
}

// Every prefix and every changed byte of a text is either read or refused with a place; the
// sanitizer build looks at the rest.
TEST(Json, NoMangledTextIsReadPastItsEnd)
{
    std::string text = "{\"a\": [1, -2.5e3, \"x\\u20ac\"], b: {c: true} // n\n, 'd': null /* x */}";
    for (size_t i = 0; i < text.size(); i++) {
        std::vector<char> exact(text.begin(), text.begin() + i);
        Parsed(std::string(exact.begin(), exact.end()));
        for (char change : {'"', '\\', '{', ']', ',', '\n', '\x80', '\0', '\''}) {
            std::string copy = text;
            copy[i] = change;
            Parsed changed(copy);
            for (size_t e = 0; e < changed.errors.count; e++)
                ASSERT_GT(changed.errors.items[e].line, 0);
        }
    }
}

TEST(Json, ALargeObjectIsReadInTime)
{
    std::string text = "{";
    for (int i = 0; i < 200000; i++)
        text += (i ? ",\"k" : "\"k") + std::to_string(i) + "\":" + std::to_string(i);
    Parsed p(text + "}", true);
    ASSERT_EQ(p.status, 0);
    EXPECT_EQ(p.value->count, 200000u);
}

// "path: a -> b" of each leaf that differs
std::string differences(const std::string &a, const std::string &b)
{
    Parsed one(a), two(b);
    std::string lines;
    zinf_json_diff(
        one.value, two.value,
        [](void *context, const char *path, const zinf_json *x, const zinf_json *y) {
            std::string *out = static_cast<std::string *>(context);
            char *left = x ? zinf_json_print(x, -1) : zinf_strdup("none");
            char *right = y ? zinf_json_print(y, -1) : zinf_strdup("none");
            *out += std::string(path) + ": " + left + " -> " + right + "\n";
            free(left);
            free(right);
        },
        &lines);
    return lines;
}

TEST(JsonDiff, LeavesThatDifferAreNamedByTheirPath)
{
    EXPECT_EQ(differences("{a: {b: 1, c: [1, 2]}, d: true}", "{a: {b: 2, c: [1, 3]}, d: true}"),
              "a.b: 1 -> 2\na.c: [1, 2] -> [1, 3]\n");
    EXPECT_EQ(differences("{a: {b: 1}}", "{a: \"x\"}"), "a: {\"b\": 1} -> \"x\"\n");
}

TEST(JsonDiff, WhatOnlyOneSideHasIsListedLeafByLeaf)
{
    EXPECT_EQ(differences("{a: {b: 1, c: {d: \"x\"}}}", "{}"),
              "a.b: 1 -> none\na.c.d: \"x\" -> none\n");
    EXPECT_EQ(differences("{z: 1}", "{a: {b: 1}, z: 2}"), "z: 1 -> 2\na.b: none -> 1\n");
}

TEST(JsonDiff, SpellingsOfTheSameValueAreNoDifference)
{
    EXPECT_EQ(differences("{a: 1, b: null, c: {x: 1, y: 2}, d: {}}",
                          "{c: {y: 2.0, x: 1}, a: 1.0, e: null}"),
              "");
    EXPECT_EQ(differences("{a: 9007199254740993}", "{a: 9007199254740992}"),
              "a: 9007199254740993 -> 9007199254740992\n");
    EXPECT_EQ(differences("{a: [{x: 1, y: 2}]}", "{a: [{y: 2, x: 1}]}"), "");
    EXPECT_EQ(differences("{a: [{x: 1}]}", "{a: [{x: 1, y: 2}]}"),
              "a: [{\"x\": 1}] -> [{\"x\": 1, \"y\": 2}]\n");
    EXPECT_EQ(differences("{a: 1, b: false}", "{a: \"1\", b: 0}"),
              "a: 1 -> \"1\"\nb: false -> 0\n");
}

TEST(JsonDiff, AMissingTreeIsAnEmptyOne)
{
    int leaves = 0;
    Parsed tree("{a: 1, b: {c: 2}}");
    auto count = [](void *context, const char *, const zinf_json *, const zinf_json *) {
        ++*static_cast<int *>(context);
    };
    zinf_json_diff(nullptr, tree.value, count, &leaves);
    zinf_json_diff(tree.value, nullptr, count, &leaves);
    zinf_json_diff(nullptr, nullptr, count, &leaves);
    EXPECT_EQ(leaves, 4);
}
} // namespace

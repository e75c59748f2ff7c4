/* A plug-in in C: a message may carry a whole number up to config.max, and nothing else. About everything but messages
 * it has nothing to say, so that another policy of the route decides who may send what.
 *
 * As a transform, it takes away white space around numbers, before any policy sees them.
 *
 * There is no C library here. README.md has the line that builds it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(name) __attribute__((import_module("mgate"), import_name(name)))

enum { ABSTAIN = 0, ALLOW = 1, DENY = 2, CANNOT_DECIDE = 7, UNCHANGED = 0 };
enum { ERROR = 0, WARN = 1, INFO = 2, DEBUG = 3 };

IMPORT("log") void mgate_log(int32_t level, const char *line, size_t length);

/* Text with a length: JSON has no terminator. */
struct text {
    const char *at;
    size_t length;
};
#define TEXT(literal) ((struct text){literal, sizeof(literal) - 1})

static int64_t max;

/* Room for one request: the gateway denies what gets none. */
static char request[65536];

/* An address that no memory has. */
static char *const no_room = (char *)-1;

EXPORT("policy_abi_version") int32_t policy_abi_version(void) { return 1; }

/* Makes room for the configuration or a request, which the very next call reads. */
EXPORT("policy_alloc") char *policy_alloc(size_t length) { return length <= sizeof request ? request : no_room; }

static bool equal(struct text one, struct text other) {
    if (one.length != other.length) return false;
    for (size_t i = 0; i < one.length; i++)
        if (one.at[i] != other.at[i]) return false;
    return true;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static void skip_space(struct text *json) {
    while (json->length && is_space(*json->at)) json->at++, json->length--;
}

/* Takes one character, and the white space around it. */
static bool take(struct text *json, char c) {
    skip_space(json);
    if (!json->length || *json->at != c) return false;
    json->at++, json->length--;
    skip_space(json);
    return true;
}

/* Takes a string as it is written, without its quotes. */
static bool take_string(struct text *json, struct text *string) {
    if (!json->length || *json->at != '"') return false;
    json->at++, json->length--;
    for (size_t i = 0; i < json->length; i++) {
        if (json->at[i] == '\\') {
            i++;
        } else if (json->at[i] == '"') {
            *string = (struct text){json->at, i};
            json->at += i + 1, json->length -= i + 1;
            return true;
        }
    }
    return false;
}

/* Takes one value of any kind, with all that is in it. */
static bool take_value(struct text *json, struct text *value) {
    value->at = json->at;
    int depth = 0;
    while (json->length) {
        char c = *json->at;
        struct text string;
        if (c == '"') {
            if (!take_string(json, &string)) return false;
        } else {
            bool ends = c == '}' || c == ']' || c == ',';
            if (depth == 0 && ends) break;
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
            json->at++, json->length--;
        }
    }
    value->length = (size_t)(json->at - value->at);
    while (value->length && is_space(value->at[value->length - 1])) value->length--;
    return value->length > 0;
}

/* Finds the value of a key in an object. */
static bool find(struct text object, struct text key, struct text *value) {
    struct text name;
    if (!take(&object, '{')) return false;
    do {
        if (!take_string(&object, &name) || !take(&object, ':') || !take_value(&object, value)) return false;
        if (equal(name, key)) return true;
    } while (take(&object, ','));
    return false;
}

static bool find_string(struct text object, struct text key, struct text *string) {
    struct text value;
    return find(object, key, &value) && take_string(&value, string);
}

/* Reads a whole number and nothing else; nine digits are enough for everybody here. */
static bool read_number(struct text digits, int64_t *number) {
    if (!digits.length || digits.length > 9) return false;
    *number = 0;
    for (size_t i = 0; i < digits.length; i++) {
        if (digits.at[i] < '0' || digits.at[i] > '9') return false;
        *number = *number * 10 + (digits.at[i] - '0');
    }
    return true;
}

static int sextet(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes Base64 into `out`; what does not fit cannot be a number anyway. */
static bool decode(struct text base64, char *out, size_t room, struct text *decoded) {
    unsigned bits = 0, count = 0;
    size_t length = 0;
    for (size_t i = 0; i < base64.length && base64.at[i] != '='; i++) {
        int value = sextet(base64.at[i]);
        if (value < 0) return false;
        bits = bits << 6 | (unsigned)value, count += 6;
        if (count < 8) continue;
        if (length == room) return false;
        count -= 8;
        out[length++] = (char)(bits >> count);
    }
    *decoded = (struct text){out, length};
    return true;
}

/* Writes Base64, which `out` must have room for. */
static size_t encode(struct text bytes, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t length = 0;
    for (size_t i = 0; i < bytes.length; i += 3) {
        unsigned group = 0;
        for (size_t j = i; j < i + 3; j++) group = group << 8 | (j < bytes.length ? (unsigned char)bytes.at[j] : 0);
        for (size_t j = 0; j < 4; j++)
            out[length++] = i + j <= bytes.length ? digits[group >> (18 - 6 * j) & 63] : '=';
    }
    return length;
}

static size_t append(char *out, struct text text) {
    for (size_t i = 0; i < text.length; i++) out[i] = text.at[i];
    return text.length;
}

/* An answer in JSON, which stays where it is until the next call: address << 32 | length. */
static uint64_t answer(struct text json) { return (uint64_t)(uintptr_t)json.at << 32 | json.length; }

/* Takes the table `config` of the configuration file. Anything but 0 says that it cannot be used. */
EXPORT("policy_configure") int32_t policy_configure(const char *at, size_t length) {
    struct text value;
    if (find((struct text){at, length}, TEXT("max"), &value) && read_number(value, &max)) return 0;
    /* `mgate check` shows the last line */
    struct text line = TEXT("config.max must be a whole number");
    mgate_log(ERROR, line.at, line.length);
    return 1;
}

/* Whether it is a message that a client sends, not one that it is given. */
static bool is_from_client(struct text action) {
    return equal(action, TEXT("publish")) || equal(action, TEXT("will"));
}

/* As a policy: answers one question, with a code. */
EXPORT("policy_evaluate") uint64_t policy_evaluate(const char *at, size_t length) {
    struct text question = {at, length}, action, name, properties, payload, carried;
    char bytes[16];
    int64_t number;
    if (!find(question, TEXT("action"), &action) || !find_string(action, TEXT("name"), &name)) return CANNOT_DECIDE;
    if (!is_from_client(name)) return ABSTAIN;
    if (!find(action, TEXT("properties"), &properties)) return CANNOT_DECIDE;
    /* not there without `payload = true`: an operator who forgot that must not believe that numbers are checked */
    if (!find_string(properties, TEXT("payload"), &payload)) return CANNOT_DECIDE;
    bool is_number = decode(payload, bytes, sizeof bytes, &carried) && read_number(carried, &number);
    return is_number && number <= max ? ABSTAIN : DENY;
}

/* As a transform: says what a packet says instead, or refuses it. */
EXPORT("transform_apply") uint64_t transform_apply(const char *at, size_t length) {
    static char json[64];
    struct text packet = {at, length}, part, message, action, payload, carried;
    char bytes[16];
    if (!find(packet, TEXT("part"), &part)) return CANNOT_DECIDE;
    if (find(part, TEXT("filter"), &message) || find(part, TEXT("login"), &message)) return UNCHANGED;
    if (!find(part, TEXT("message"), &message) || !find_string(message, TEXT("action"), &action)) return CANNOT_DECIDE;
    if (!is_from_client(action)) return UNCHANGED;
    if (!find_string(message, TEXT("payload"), &payload)) return CANNOT_DECIDE;
    if (!payload.length) return answer(TEXT("{\"drop\":\"there is nothing in it\"}"));
    if (!decode(payload, bytes, sizeof bytes, &carried)) return answer(TEXT("{\"deny\":\"too long for a number\"}"));
    struct text number = carried;
    skip_space(&number);
    while (number.length && is_space(number.at[number.length - 1])) number.length--;
    if (number.length == carried.length) return UNCHANGED;
    size_t end = append(json, TEXT("{\"payload\":\""));
    end += encode(number, json + end);
    end += append(json + end, TEXT("\"}"));
    return answer((struct text){json, end});
}

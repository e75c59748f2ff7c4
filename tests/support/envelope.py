"""Reads envelopes of the Mainflux family with Google's own library: "RELEASE HEX" a line in, JSON a line out.

The fields are those of message.proto as each release has published it.
"""

import json
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, unknown_fields

FIELD = descriptor_pb2.FieldDescriptorProto

TYPES = {"payload": FIELD.TYPE_BYTES, "created": FIELD.TYPE_INT64}
RELEASES = {
    "0.8.0": ["channel", "subtopic", "publisher", "protocol", "contentType", "payload"],
    "0.11.0": ["channel", "subtopic", "publisher", "protocol", "payload", "created"],
    "0.17.0": ["channel", "domain", "subtopic", "publisher", "protocol", "payload", "created"],
    "0.20.0": ["channel", "domain", "subtopic", "publisher", "protocol", "payload", "created", "client_id"],
    "0.50.0": ["channel", "domain", "subtopic", "publisher", "protocol", "payload", "created", "client_id", "metadata"],
}


def message_class(release, names):
    package = "r" + release.replace(".", "_")
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    message = file.message_type.add(name="Message")
    for number, name in enumerate(names, 1):
        field = message.field.add(name=name, number=number, label=FIELD.LABEL_OPTIONAL)
        if name == "metadata":
            field.label, field.type, field.type_name = FIELD.LABEL_REPEATED, FIELD.TYPE_MESSAGE, ".".join(
                ["", package, "Message", "MetadataEntry"]
            )
            entry = message.nested_type.add(name="MetadataEntry")
            entry.options.map_entry = True
            for at, key in enumerate(["key", "value"], 1):
                entry.field.add(name=key, number=at, label=FIELD.LABEL_OPTIONAL, type=FIELD.TYPE_STRING)
        else:
            field.type = TYPES.get(name, FIELD.TYPE_STRING)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Message"))


def main():
    classes = {release: message_class(release, names) for release, names in RELEASES.items()}
    for line in sys.stdin:
        release, hexadecimal = line.split()
        message = classes[release].FromString(bytes.fromhex(hexadecimal))
        if len(unknown_fields.UnknownFieldSet(message)):
            sys.exit(f"{release}: there are fields that it does not have")
        print(json.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True)), flush=True)


main()

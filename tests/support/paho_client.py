"""Subscribes, publishes at every QoS, receives what it published, disconnects; says "ok"."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

port, version, transport, ca, topic = sys.argv[1:]
is_5 = version == "5"
happened = queue.Queue()
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=f"paho-{version}-{transport}",
    protocol=mqtt.MQTTv5 if is_5 else mqtt.MQTTv311,
    transport="websockets" if transport.startswith("ws") else "tcp",
)
if transport in ("tls", "wss"):
    client.tls_set(ca_certs=ca)
if transport.startswith("ws"):
    client.ws_set_options(path="/mqtt")
client.on_connect = lambda _c, _u, _f, code, _p: happened.put(("connected", code.value))
client.on_subscribe = lambda _c, _u, _id, codes, _p: happened.put(("subscribed", codes[0].value))
client.on_disconnect = lambda _c, _u, _f, code, _p: happened.put(("disconnected", code.value))
client.on_message = lambda _c, _u, message: happened.put(message)


def expect(expected):
    found = happened.get(timeout=20)
    assert found == expected, f"{found} instead of {expected}"


client.connect("localhost", int(port))
client.loop_start()
expect(("connected", 0))
client.subscribe(topic, qos=2)
expect(("subscribed", 2))
for qos in (0, 1, 2):
    properties = None
    if is_5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("unit", "mm"), ("unit", "cm")]
        properties.CorrelationData = b"\x00\xff"
    client.publish(topic, f"qos {qos}", qos=qos, properties=properties).wait_for_publish(20)
    message = happened.get(timeout=20)
    assert (message.payload.decode(), message.qos) == (f"qos {qos}", qos), message
    if is_5:
        assert message.properties.UserProperty == [("unit", "mm"), ("unit", "cm")], message.properties
        assert message.properties.CorrelationData == b"\x00\xff", message.properties
client.disconnect()
expect(("disconnected", 0))
client.loop_stop()
print("ok")

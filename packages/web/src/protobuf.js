/*
 * As much of the protocol buffer wire format as .onnx files need, as src/segrt/protobuf.py.
 * See https://protobuf.dev/programming-guides/encoding/. Field numbers are those of onnx.proto.
 */

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const FIXED = { 1: 8, 5: 4 }; // wire type: bytes of the value

const text = new TextDecoder();

/** The UTF-8 text of a field's value. */
export const decode = (value) => text.decode(value);

/**
 * Yield [number, value] of each field of a message: bytes (a view), or a number for a varint.
 *
 * @param {Uint8Array} message
 * @throws {RangeError} the message is damaged or truncated
 */
export function* fields(message) {
  let at = 0;
  const varint = () => {
    let number = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= message.length) throw new RangeError("the message ends inside a number");
      const byte = message[at++];
      number += (byte & 0x7f) * 2 ** shift; // exact below 2 ** 53
      if (byte < 0x80) return number;
    }
    throw new RangeError("a varint of more than 64 bits");
  };
  while (at < message.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === VARINT) {
      yield [Math.floor(tag / 8), varint()];
      continue;
    }
    const length = kind === LENGTH_DELIMITED ? varint() : FIXED[kind];
    if (length === undefined) throw new RangeError(`unknown wire type ${kind}`);
    if (at + length > message.length) throw new RangeError("the message ends inside a field");
    yield [Math.floor(tag / 8), message.subarray(at, at + length)];
    at += length;
  }
}

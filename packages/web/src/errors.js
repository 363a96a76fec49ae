/** An error whose message is one sentence for the user. */
export class SegrtError extends Error {
  name = "SegrtError";
}

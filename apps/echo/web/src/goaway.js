// Reports the server's GOAWAY, which @moq/net reads and does not report.

/** The type of a GOAWAY stream in moq-lite-04 and later: the first byte of a bidirectional stream of the server's. */
const GOAWAY = 5;

/**
 * Looks at the first byte of each stream that the server opens.
 *
 * @param {WebTransport} transport A session from which no stream has been read.
 * @returns {{transport: WebTransport, asked: Promise<void>}} What to use in the session's place, and what resolves when
 *   the server asks to leave.
 */
export function watchGoaway(transport) {
  let report;
  const asked = new Promise((resolve) => (report = resolve));
  const incoming = transport.incomingBidirectionalStreams.pipeThrough(
    new TransformStream({
      transform({ readable, writable }, controller) {
        controller.enqueue({ readable: watchFirst(readable, (byte) => byte === GOAWAY && report()), writable });
      },
    }),
  );
  const watched = new Proxy(transport, {
    get(target, name) {
      if (name === "incomingBidirectionalStreams") return incoming;
      const value = target[name];
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return { transport: watched, asked };
}

/** Returns a stream of the same chunks, and calls `look` with the first byte as it passes. */
function watchFirst(readable, look) {
  const reader = readable.getReader();
  let seen = false;
  return new ReadableStream(
    {
      async pull(controller) {
        const { value, done } = await reader.read();
        if (done) return controller.close();
        if (!seen && value.length > 0) {
          seen = true;
          look(value[0]);
        }
        controller.enqueue(value);
      },
      cancel: (reason) => reader.cancel(reason),
    },
    // Nothing is read ahead, so that the server's stream stays under its own flow control.
    { highWaterMark: 0 },
  );
}

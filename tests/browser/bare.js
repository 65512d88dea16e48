// What the tests do with the browser's own WebTransport API. Every function resolves to something that JSON can carry.

globalThis.bare = {
  sessions: new Map(),

  /** Opens a session and keeps it under its name. */
  async connect({ name = "only", url, fingerprint, options = {} }) {
    const value = Uint8Array.from(fingerprint.match(/../g), (pair) => parseInt(pair, 16));
    const session = new WebTransport(url, {
      ...options,
      serverCertificateHashes: [{ algorithm: "sha-256", value }],
    });
    session.closed.catch(() => {});
    await session.ready;
    bare.sessions.set(name, session);
    return { protocol: session.protocol ?? null };
  },

  /** Returns how opening a session fails. */
  async refused(settings) {
    try {
      await bare.connect(settings);
    } catch (error) {
      return { name: error.name, source: error.source };
    }
    return null;
  },

  get only() {
    return bare.sessions.get("only");
  },

  /** Returns bytes that no shift or swap leaves as they are. */
  pattern(size, seed = 0) {
    const data = new Uint8Array(size);
    for (let index = 0; index < size; index++) data[index] = (index * 31 + (index >> 8) * 17 + seed) & 0xff;
    return data;
  },

  async read(readable) {
    const pieces = [];
    for await (const piece of readable) pieces.push(piece);
    return new Uint8Array(await new Blob(pieces).arrayBuffer());
  },

  async write(writable, data) {
    const writer = writable.getWriter();
    await writer.write(data);
    await writer.close();
  },

  text: (bytes) => new TextDecoder().decode(bytes),
  bytes: (text) => new TextEncoder().encode(text),
  same: (one, other) => one.length === other.length && one.every((byte, index) => byte === other[index]),

  /** Sends bytes on a new bidirectional stream, and returns whether the same came back. */
  async bidi({ name = "only", size, seed }) {
    const stream = await bare.sessions.get(name).createBidirectionalStream();
    const data = bare.pattern(size, seed);
    const [back] = await Promise.all([bare.read(stream.readable), bare.write(stream.writable, data)]);
    return bare.same(back, data);
  },

  async next(streams) {
    const reader = streams.getReader();
    const { value } = await reader.read();
    reader.releaseLock();
    return value;
  },

  /** Sends bytes on a new unidirectional stream, and returns whether the server sent the same on one of its own. */
  async uni({ size }) {
    const data = bare.pattern(size);
    await bare.write(await bare.only.createUnidirectionalStream(), data);
    return bare.same(await bare.read(await bare.next(bare.only.incomingUnidirectionalStreams)), data);
  },

  /** Answers the server's question, and returns all that it says. */
  async answer({ answer }) {
    const stream = await bare.next(bare.only.incomingBidirectionalStreams);
    const reader = stream.readable.getReader();
    let said = bare.text((await reader.read()).value);
    await bare.write(stream.writable, bare.bytes(answer));
    for (let step; !(step = await reader.read()).done; ) said += bare.text(step.value);
    return said;
  },

  /** Sends one datagram again and again until it comes back; returns whether it is the same. */
  async datagram({ size }) {
    const { datagrams } = bare.only;
    const data = bare.pattern(size, size);
    const writer = (datagrams.createWritable?.() ?? datagrams.writable).getWriter();
    const reader = datagrams.readable.getReader();
    await writer.write(data);
    const again = setInterval(() => writer.write(data), 100);
    try {
      for (;;) {
        const { value } = await reader.read();
        if (value.length === size) return bare.same(value, data);
      }
    } finally {
      clearInterval(again);
      writer.releaseLock();
      reader.releaseLock();
    }
  },

  /** Opens a stream that the server gives up; returns with which codes. */
  async givenUp() {
    const stream = await bare.only.createBidirectionalStream();
    const writer = stream.writable.getWriter();
    await writer.write(bare.bytes("x"));
    const failure = (error) => ({ name: error.name, source: error.source, code: error.streamErrorCode });
    return {
      reset: await bare.read(stream.readable).then(() => null, failure),
      stop: await writer.closed.then(() => null, failure),
    };
  },

  /** Sends a whole stream, and does not mind that the session may end before its end is acknowledged. */
  async knock() {
    await bare.write(await bare.only.createUnidirectionalStream(), bare.bytes("x")).catch(() => {});
  },

  /** Opens a stream for the server to read. */
  async begin() {
    bare.stream = await bare.only.createBidirectionalStream();
    bare.writer = bare.stream.writable.getWriter();
    await bare.writer.write(bare.bytes("x"));
  },

  /** Gives that stream up, both halves. */
  async giveUp({ reset, stop }) {
    await bare.writer.abort(new WebTransportError({ message: "enough", streamErrorCode: reset }));
    await bare.stream.readable.cancel(new WebTransportError({ message: "enough", streamErrorCode: stop }));
  },

  /** Waits until a session is over, and returns how. */
  async closed({ name = "only" } = {}) {
    const { closeCode, reason } = await bare.sessions.get(name).closed;
    return { closeCode, reason };
  },
};

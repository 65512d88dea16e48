// What the tests do with the browser's own WebTransport API. Every function resolves to something that JSON can carry.

globalThis.api = {
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
    api.sessions.set(name, session);
    return { protocol: session.protocol ?? null };
  },

  /** Returns how opening a session fails. */
  async refused(settings) {
    try {
      await api.connect(settings);
    } catch (error) {
      return { name: error.name, source: error.source };
    }
    return null;
  },

  get only() {
    return api.sessions.get("only");
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
    const stream = await api.sessions.get(name).createBidirectionalStream();
    const data = api.pattern(size, seed);
    const [back] = await Promise.all([api.read(stream.readable), api.write(stream.writable, data)]);
    return api.same(back, data);
  },

  async next(streams) {
    const reader = streams.getReader();
    const { value } = await reader.read();
    reader.releaseLock();
    return value;
  },

  /** Sends bytes on a new unidirectional stream, and returns whether the server sent the same on one of its own. */
  async uni({ size }) {
    const data = api.pattern(size);
    await api.write(await api.only.createUnidirectionalStream(), data);
    return api.same(await api.read(await api.next(api.only.incomingUnidirectionalStreams)), data);
  },

  /** Answers the server's question, and returns all that the server sends. */
  async answer({ answer }) {
    const stream = await api.next(api.only.incomingBidirectionalStreams);
    const reader = stream.readable.getReader();
    let reply = api.text((await reader.read()).value);
    await api.write(stream.writable, api.bytes(answer));
    for (let step; !(step = await reader.read()).done; ) reply += api.text(step.value);
    return reply;
  },

  /** Sends one datagram again and again until it comes back; returns whether it is the same. */
  async datagram({ size }) {
    const { datagrams } = api.only;
    const data = api.pattern(size, size);
    const writer = (datagrams.createWritable?.() ?? datagrams.writable).getWriter();
    const reader = datagrams.readable.getReader();
    await writer.write(data);
    const again = setInterval(() => writer.write(data), 100);
    try {
      for (;;) {
        const { value } = await reader.read();
        if (value.length === size) return api.same(value, data);
      }
    } finally {
      clearInterval(again);
      writer.releaseLock();
      reader.releaseLock();
    }
  },

  /** Opens a stream that the server resets and stops; returns the codes. */
  async cancelledByServer() {
    const stream = await api.only.createBidirectionalStream();
    const writer = stream.writable.getWriter();
    await writer.write(api.bytes("x"));
    const failure = (error) => ({ name: error.name, source: error.source, code: error.streamErrorCode });
    return {
      reset: await api.read(stream.readable).then(() => null, failure),
      stop: await writer.closed.then(() => null, failure),
    };
  },

  /**
   * Waits for a stream of each kind before the server opens and resets them. Returns the codes of their resets; "untold"
   * for a stream that arrived, and whose reader was told nothing within a second.
   */
  async resetAtOnce() {
    const code = (stream) => {
      const told = api.read(stream).then(() => null, (error) => error.streamErrorCode);
      return Promise.race([told, new Promise((done) => setTimeout(done, 1000, "untold"))]);
    };
    const uni = api.next(api.only.incomingUnidirectionalStreams).then(code);
    const bidi = api.next(api.only.incomingBidirectionalStreams).then((stream) => code(stream.readable));
    await api.sendStream();
    return Promise.all([uni, bidi]);
  },

  /** Sends a whole stream; the session may end before it is acknowledged. */
  async sendStream() {
    await api.write(await api.only.createUnidirectionalStream(), api.bytes("x")).catch(() => {});
  },

  /** Opens a stream for the server to read. */
  async begin() {
    api.stream = await api.only.createBidirectionalStream();
    api.writer = api.stream.writable.getWriter();
    await api.writer.write(api.bytes("x"));
  },

  /** Resets and stops that stream. */
  async cancel({ reset, stop }) {
    await api.writer.abort(new WebTransportError({ message: "enough", streamErrorCode: reset }));
    await api.stream.readable.cancel(new WebTransportError({ message: "enough", streamErrorCode: stop }));
  },

  /** Waits until a session is over, and returns how. */
  async closed({ name = "only" } = {}) {
    const { closeCode, reason } = await api.sessions.get(name).closed;
    return { closeCode, reason };
  },
};

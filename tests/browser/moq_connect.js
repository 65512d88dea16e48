// How the pages of the tests open a session with @moq/net: with one version, and the server's certificate pinned.

import * as Moq from "@moq/net";

export async function connect({ url, fingerprint, version }) {
  const transport = new WebTransport(url, {
    protocols: [version],
    serverCertificateHashes: [
      { algorithm: "sha-256", value: Uint8Array.from(fingerprint.match(/../g), (pair) => parseInt(pair, 16)) },
    ],
  });
  await transport.ready;
  return await Moq.Connection.connect(new URL(url), { transport });
}

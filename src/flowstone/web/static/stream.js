// One stream for all tabs of a browser: a SharedWorker that listens while one of them is visible, and never else.
// Browsers allow six connections to a host over all tabs, which eight tabs with a stream each would use up.
const tabs = new Map(); // port -> {visible, seen}
let source, address, last;

const send = (message) => {
  for (const port of tabs.keys()) port.postMessage(message);
};

const listen = () => {
  const now = Date.now();
  for (const [port, tab] of tabs) if (now - tab.seen > 25000) tabs.delete(port);
  const needed = [...tabs.values()].some((tab) => tab.visible);
  if (!needed || (source && source.readyState === EventSource.CLOSED)) {
    source?.close();
    source = undefined;
  }
  if (!needed || source) return;
  source = new EventSource(address);
  source.addEventListener("pulse", ({ data }) => send((last = { kind: "pulse", ...JSON.parse(data) })));
  source.addEventListener("failed", ({ data }) => send({ kind: "failed", ...JSON.parse(data) }));
  source.addEventListener("gone", () => send({ kind: "gone" }));
  source.onerror = () => send({ kind: "lost" });
};

self.onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    if (data.bye) tabs.delete(port);
    else {
      address = data.address;
      tabs.set(port, { visible: data.visible, seen: Date.now() });
      if (data.first && last && source?.readyState === EventSource.OPEN) port.postMessage(last);
    }
    listen();
  };
};
setInterval(listen, 5000);

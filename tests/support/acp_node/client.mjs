// One repair through the protocol's TypeScript SDK: client.mjs FOLDER TASK COMMAND...
import { spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { Readable, Writable } from "node:stream";
import { PROTOCOL_VERSION, client, methods, ndJsonStream } from "@agentclientprotocol/sdk";

const [folder, task, command, ...flags] = process.argv.slice(2);
const agent = spawn(command, flags, { stdio: ["pipe", "pipe", "inherit"] });
const stream = ndJsonStream(Writable.toWeb(agent.stdin), Readable.toWeb(agent.stdout));
const seen = { updates: [], asked: [], written: [] };

const editor = client({ name: "test" })
  .onNotification(methods.client.session.update, ({ params }) => {
    seen.updates.push(params.update.sessionUpdate);
  })
  .onRequest(methods.client.session.requestPermission, ({ params }) => {
    seen.asked.push(params.toolCall.kind);
    const { optionId } = params.options.find((option) => option.kind === "allow_once");
    return { outcome: { outcome: "selected", optionId } };
  })
  .onRequest(methods.client.fs.readTextFile, async ({ params }) => ({
    content: await readFile(params.path, "utf8"),
  }))
  .onRequest(methods.client.fs.writeTextFile, async ({ params }) => {
    seen.written.push(params.path);
    await writeFile(params.path, params.content);
    return {};
  });

await editor.connectWith(stream, async (peer) => {
  const hello = await peer.request(methods.agent.initialize, {
    protocolVersion: PROTOCOL_VERSION,
    clientCapabilities: { fs: { readTextFile: true, writeTextFile: true }, terminal: false },
  });
  seen.version = hello.protocolVersion;
  const { sessionId } = await peer.request(methods.agent.session.new, { cwd: folder, mcpServers: [] });
  const answer = await peer.request(methods.agent.session.prompt, {
    sessionId,
    prompt: [{ type: "text", text: task }],
  });
  seen.stopReason = answer.stopReason;
});
agent.stdin.end();
process.stdout.write(JSON.stringify(seen) + "\n");

// Codex, really as the command-line program that its users type. It asks by responses, with a system prompt, custom tools,
// namespaces and reasoning items of its own.
import { execFile } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { assert, BASE_URL, play, SERVICE } from "../shared/client_program.mjs";

const home = mkdtempSync(join(tmpdir(), "codex-client-"));
const program = resolve("node_modules/.bin/codex");
writeFileSync(join(home, "instructions.md"), "Be brief."); // Codex's own instructions are longer than the model's context
writeFileSync(
  join(home, "config.toml"),
  `model = "${SERVICE.model}"
model_provider = "here"
model_instructions_file = "${join(home, "instructions.md")}"
model_context_window = ${SERVICE.context_tokens}
web_search = "disabled"
[model_providers.here]
name = "here"
base_url = "${BASE_URL}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
stream_idle_timeout_ms = 300000
[analytics]
enabled = false
`,
);

// Run the program, and return the last message of the model. An error of the service ends it with another status.
async function codex(...args) {
  const env = { ...process.env, CODEX_HOME: home };
  const running = promisify(execFile)(program, ["exec", ...args, "--skip-git-repo-check", "--json"], { cwd: home, env });
  running.child.stdin.end();
  const ended = await running.catch((error) => Promise.reject(new Error(error.stdout.trim().split("\n").at(-1))));
  const events = ended.stdout.trim().split("\n").map((line) => JSON.parse(line));
  assert.ok(events.some((event) => event.type === "turn.completed"), JSON.stringify(events));
  const messages = events.filter((event) => event.item?.type === "agent_message");
  assert.ok(messages.length > 0, JSON.stringify(events));
  return messages.at(-1).item.text;
}

async function stream() {
  assert.ok(await codex("What is the capital of France?"));
}

// The answer goes back in the history, with what Codex has added to it.
async function a_second_turn() {
  assert.ok(await codex("resume", "--last", "And of Spain?"));
}

await play(
  { stream, a_second_turn },
  {
    chat: "Codex only streams",
    tools: "they are offered to the model in each turn, and a small model calls none, or with arguments without sense",
    structured_output: "beside a schema Codex offers its tools, and a small model may call them instead of answering",
    embeddings: "Codex has no embeddings",
  },
);

// The frame of a client's program in JavaScript: the same as client_program.py.
import { strict as assert } from "node:assert";

const service = JSON.parse(process.argv[2]);
export const SERVICE = service;
export const BASE_URL = `${service.url}/v1`;
export const EMBEDDING_BASE_URL = `${service.embedding_url}/v1`;
export const KEY = "any";
export { assert };

const LONGEST_MESSAGE = 600;
const print = (scene, outcome, reason) => console.log(JSON.stringify({ scene, outcome, reason }));

// Play every scene: an object of name to an async function, which passes when it returns and fails when it throws.
// `notOffered` has a reason for each scene that all clients are asked for and this one has nothing for.
export async function play(scenes, notOffered = {}) {
  for (const [name, reason] of Object.entries(notOffered)) print(name, "not offered", reason);
  for (const [name, scene] of Object.entries(scenes)) {
    try {
      await scene();
      print(name, "passed", "");
    } catch (error) {
      console.error(error);
      const line = (error.stack ?? "").split("\n").find((frame) => frame.includes("program.mjs")) ?? "";
      const message = `${line.trim().replace(/^at .*\/(?=program)/, "")} ${error.name}: ${error.message}`;
      print(name, "failed", message.replace(/\s+/g, " ").slice(0, LONGEST_MESSAGE));
    }
  }
}

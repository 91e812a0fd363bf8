// The npm package `@openai/agents`, over responses, which is its default, and over chat completions.
import { Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, run, setTracingDisabled, tool, user } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import { assert, BASE_URL, KEY, play, SERVICE } from "../shared/client_program.mjs";

setTracingDisabled(true);
const client = new OpenAI({ baseURL: BASE_URL, apiKey: KEY, maxRetries: 0 });
const models = [new OpenAIResponsesModel(client, SERVICE.model), new OpenAIChatCompletionsModel(client, SERVICE.model)];
const question = "What is the capital of France?";
const City = z.object({ name: z.string().max(20), size: z.enum(["small", "large"]) });
const Weather = z.object({ city: z.string().max(20), unit: z.enum(["C", "F"]) });
const settings = { maxTokens: 100, temperature: 0 };
const agent = (model, more = {}) => new Agent({ name: "Guide", instructions: "Be brief.", model, modelSettings: settings, ...more });

// Its own history goes back in a second run.
async function chat() {
  for (const model of models) {
    const first = await run(agent(model), question);
    assert.ok(first.finalOutput);
    assert.ok((await run(agent(model), [...first.history, user("And of Spain?")])).finalOutput);
  }
}

async function stream() {
  for (const model of models) {
    const streamed = await run(agent(model), question, { stream: true });
    let text = "";
    for await (const piece of streamed.toTextStream()) text += piece;
    await streamed.completed;
    assert.ok(text);
    assert.equal(text, streamed.finalOutput);
  }
}

// The package forces the call in the first turn only, and sends its result in the second.
async function tools() {
  for (const model of models) {
    const asked = [];
    const execute = async (weather) => {
      asked.push(weather);
      return "22 degrees";
    };
    const get_weather = tool({ name: "get_weather", description: "The weather in a city", parameters: Weather, execute });
    const modelSettings = { ...settings, toolChoice: "required", parallelToolCalls: false };
    const first = await run(agent(model, { tools: [get_weather], modelSettings, toolUseBehavior: "stop_on_first_tool" }), question);
    assert.equal(asked.length, 1);
    assert.ok((await run(agent(model), first.history)).finalOutput);
  }
}

async function structured_output() {
  for (const model of models) {
    City.parse((await run(agent(model, { outputType: City }), question)).finalOutput);
  }
}

await play({ chat, stream, tools, structured_output }, { embeddings: "the package has no embeddings" });

// The AI SDK (`ai`) with its provider for servers of OpenAI's API, and with the one for OpenAI itself, which asks
// `/v1/responses` and names items of earlier responses by their ids.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, isStepCount, Output, streamText, tool, ToolLoopAgent } from "ai";
import { z } from "zod";
import { assert, BASE_URL, EMBEDDING_BASE_URL, KEY, play, SERVICE } from "../shared/client_program.mjs";

const provider = createOpenAICompatible({ name: "here", baseURL: BASE_URL, apiKey: KEY, supportsStructuredOutputs: true, includeUsage: true });
const model = provider.chatModel(SERVICE.model);
const prompt = "What is the capital of France?";
const brief = { model, prompt, maxOutputTokens: 24, temperature: 0, maxRetries: 0 };
const longer = { ...brief, maxOutputTokens: 100 };
const City = z.object({ name: z.string().max(20), size: z.enum(["small", "large"]) });
const Weather = z.object({ city: z.string().max(20), unit: z.enum(["C", "F"]) });

async function chat() {
  const answer = await generateText(brief);
  assert.ok(answer.text);
  assert.ok(answer.usage.outputTokens > 0);
}

async function stream() {
  const answer = streamText(brief);
  let text = "";
  for await (const piece of answer.textStream) text += piece;
  assert.equal(text, (await generateText(brief)).text);
  assert.ok((await answer.usage).outputTokens > 0);
}

const openai = createOpenAI({ baseURL: BASE_URL, apiKey: KEY });

// The tool is forced in the first step; its result goes back in the second, where the choice is taken away.
const tools = () => use_tools(model);

async function use_tools(model, providerOptions) {
  const asked = [];
  const get_weather = tool({
    description: "The weather in a city",
    inputSchema: Weather,
    execute: async (weather) => {
      asked.push(weather);
      return { degrees: 22 };
    },
  });
  const steps = {
    ...longer,
    model,
    providerOptions,
    tools: { get_weather },
    stopWhen: isStepCount(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? { type: "tool", toolName: "get_weather" } : "none" }),
  };
  const answer = await generateText(steps);
  assert.ok(asked.length > 0 && answer.text && answer.steps.length === 2);
  asked.length = 0;
  const streamed = streamText(steps);
  await streamed.consumeStream();
  assert.ok(asked.length > 0 && (await streamed.text));
}

async function openai_responses() {
  await use_tools(openai.responses(SERVICE.model));
  const request = { ...longer, model: openai(SERVICE.model) };
  City.parse((await generateText({ ...request, output: Output.object({ schema: City }) })).output);
  const first = await generateText(request);
  assert.ok(first.text && first.usage.outputTokens > 0);
  const messages = [{ role: "user", content: prompt }, ...first.response.messages, { role: "user", content: "And of Spain?" }];
  const second = streamText({ ...request, prompt: undefined, messages });
  await second.consumeStream();
  assert.ok(await second.text);
}

async function openai_chat() {
  await use_tools(openai.chat(SERVICE.model));
}

// Without storing, the provider sends the items themselves instead of their ids.
async function openai_responses_that_are_not_stored() {
  await use_tools(openai(SERVICE.model), { openai: { store: false, parallelToolCalls: false } });
}

async function completions() {
  for (const model of [openai.completion(SERVICE.model), provider.completionModel(SERVICE.model)]) {
    const whole = await generateText({ ...brief, model });
    const streamed = streamText({ ...brief, model });
    await streamed.consumeStream();
    assert.ok(whole.text && whole.usage.outputTokens > 0);
    assert.equal(await streamed.text, whole.text);
  }
}

async function agent() {
  for (const model of [openai(SERVICE.model), provider.chatModel(SERVICE.model)]) {
    const agent = new ToolLoopAgent({ model, instructions: "Be brief.", maxOutputTokens: 24, temperature: 0, maxRetries: 0 });
    assert.ok((await agent.generate({ prompt })).text);
  }
}

async function structured_output() {
  City.parse((await generateText({ ...longer, output: Output.object({ schema: City }) })).output);
  const streamed = streamText({ ...longer, output: Output.object({ schema: City }) });
  await streamed.consumeStream();
  City.parse(await streamed.output);
  const cities = Output.array({ element: City });
  assert.ok(Array.isArray((await generateText({ ...longer, maxOutputTokens: 800, output: cities })).output));
  const choice = Output.choice({ options: ["yes", "no"] });
  assert.ok(["yes", "no"].includes((await generateText({ ...longer, output: choice })).output));
}

// z.record writes propertyNames, and the formats of zod are annotations.
async function structured_output_of_many_types() {
  const Account = z.object({ id: z.ulid().max(26), phone: z.e164(), scores: z.record(z.string(), z.int().max(99)) });
  const { output } = await generateText({ ...longer, maxOutputTokens: 400, output: Output.json() });
  assert.ok(output !== undefined);
  const answer = await generateText({ ...longer, maxOutputTokens: 400, output: Output.object({ schema: Account }) }).catch((error) => {
    if (error.statusCode) throw error; // what the service refuses; whether the text fits zod's own patterns is the model's affair
  });
  assert.ok(answer === undefined || answer.text);
}

async function embeddings() {
  const there = { name: "there", baseURL: EMBEDDING_BASE_URL, apiKey: KEY };
  for (const provider of [createOpenAICompatible(there), createOpenAI(there)]) {
    const answer = await embedMany({ model: provider.embeddingModel(SERVICE.embedding_model), values: ["a cat", "a dog"], maxRetries: 0 });
    assert.deepEqual(answer.embeddings.map((vector) => vector.length), [SERVICE.embedding_dimensions, SERVICE.embedding_dimensions]);
  }
}

await play({
  chat,
  stream,
  tools,
  openai_chat,
  openai_responses,
  openai_responses_that_are_not_stored,
  completions,
  agent,
  structured_output,
  structured_output_of_many_types,
  embeddings,
});

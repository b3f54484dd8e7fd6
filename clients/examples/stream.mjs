// Streams a continuation: node clients/examples/stream.mjs "Once upon a time" [address]
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import {fileURLToPath} from 'node:url';

const protos = fileURLToPath(new URL('../../proto', import.meta.url));
const definition = protoLoader.loadSync('cadre/v1/generation_service.proto', {
  includeDirs: [protos],
  keepCase: true,
  longs: String,  // 64-bit integers do not fit into a number
  enums: String,
  defaults: true,  // what is empty is not sent, and would be undefined
  oneofs: true,
});
const {GenerationService} = grpc.loadPackageDefinition(definition).cadre.v1;

const [prompt = 'Once upon a time', address = '127.0.0.1:50051'] = process.argv.slice(2);
const client = new GenerationService(address, grpc.credentials.createInsecure());
const request = {text: prompt, stopping: {max_tokens: 64}};
const stream = client.Generate(request, {deadline: Date.now() + 60_000});

stream.on('data', (message) => {
  if (message.event === 'delta') {
    process.stdout.write(message.delta.text);
  } else if (message.event === 'finished') {
    const {text, usage} = message.finished;
    process.stdout.write(`${text}\n[${usage.generated_tokens} tokens]\n`);
  }
});
stream.on('error', (error) => {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
});
stream.on('end', () => client.close());

import { Counter, collectDefaultMetrics, Gauge, Histogram, type Registry } from 'prom-client';

/** What the edge counts of itself. */
export interface EdgeMetrics {
  registry: Registry;
  requests: Counter<'route' | 'status'>;
  duration: Histogram<'route'>;
  sockets: Gauge<'path'>;
  socketsClosed: Counter<'path' | 'code'>;
  /** Of clients. */
  subscriptions: Gauge;
  /** Executions behind them. */
  sharedExecutions: Gauge;
  deliveries: Counter;
}

/** Registers with `registry`, which others may add to. */
export function edgeMetrics(registry: Registry): EdgeMetrics {
  const registers = [registry];
  if (!registry.getSingleMetric('process_cpu_seconds_total')) collectDefaultMetrics({ register: registry });
  return {
    registry,
    requests: new Counter({
      name: 'virtgraph_http_requests_total',
      help: 'HTTP requests answered.',
      labelNames: ['route', 'status'],
      registers,
    }),
    duration: new Histogram({
      name: 'virtgraph_http_request_duration_seconds',
      help: 'From the head of a request to the end of its answer.',
      labelNames: ['route'],
      buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
      registers,
    }),
    sockets: new Gauge({
      name: 'virtgraph_websocket_connections',
      help: 'Open WebSockets.',
      labelNames: ['path'],
      registers,
    }),
    socketsClosed: new Counter({
      name: 'virtgraph_websocket_closed_total',
      help: 'Closed WebSockets, by close code.',
      labelNames: ['path', 'code'],
      registers,
    }),
    subscriptions: new Gauge({
      name: 'virtgraph_subscriptions',
      help: 'Subscriptions of clients that are open.',
      registers,
    }),
    sharedExecutions: new Gauge({
      name: 'virtgraph_subscription_executions',
      help: 'Executions that serve the shared subscriptions among them.',
      registers,
    }),
    deliveries: new Counter({
      name: 'virtgraph_subscription_deliveries_total',
      help: 'Values sent to subscribers.',
      registers,
    }),
  };
}

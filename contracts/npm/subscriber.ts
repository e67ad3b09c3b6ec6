// An example of a subscriber in TypeScript. make contracts-ts compiles it.
import type { CarCreated, Event } from '../../bin/contracts-ts/events';

export function describe(event: Event): string {
  const { aggregateId, aggregateVersion } = event.detail;
  switch (event['detail-type']) {
    case 'CarCreated':
    case 'CarUpdated':
      return `${aggregateId} v${aggregateVersion} is a ${event.detail.eventData.color ?? 'car'} of ${event.detail.eventData.make}`;
    case 'CarDeleted':
      return `${aggregateId} v${aggregateVersion} is gone since ${event.detail.eventData.deletedAt}`;
    default:
      return aggregateId; // an event type that came later
  }
}

// What a contract forbids does not compile.
export const year: number = ({} as CarCreated).detail.eventData.year;
// @ts-expect-error a car that was created has no deletedAt
export const deletedAt = ({} as CarCreated).detail.eventData.deletedAt;
// @ts-expect-error color may be null
export const color: string = ({} as CarCreated).detail.eventData.color;
// @ts-expect-error nothing has this source
export const source: Event['source'] = 'outbox.boat';

//! What one message costs: parse, digest, encode, acknowledge.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench that cannot set up has nothing to measure"
)]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use data_channel::{Acknowledge, Draft, Incoming, Message, MessageType, Outgoing, PayloadType, Uuid};
use std::time::Duration;

const CREATED: u64 = 1_503_434_274_948;

fn draft(payload: &[u8]) -> Draft<'_> {
    Draft {
        message_type: MessageType::OutputStreamData,
        created_ms: CREATED,
        sequence: 123_456,
        flags: 0,
        id: Uuid::from_u128(0xdd01_e56b_ff48_483e_a508_b5f0_73f3_1b16),
        payload_type: PayloadType::Output,
        payload,
    }
}

fn messages(c: &mut Criterion) {
    let payload = [b'x'; 1024];
    let raw = draft(&payload).encode();
    let mut group = c.benchmark_group("message");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse 1 KiB", |b| b.iter(|| Message::parse(black_box(raw.clone()))));
    let message = Message::parse(raw).ok();
    group.bench_function("digest 1 KiB", |b| {
        b.iter(|| black_box(&message).as_ref().map(Message::digest_matches));
    });
    group.bench_function("encode 1 KiB", |b| b.iter(|| draft(black_box(&payload)).encode()));
    group.bench_function("encode 1 byte", |b| b.iter(|| draft(black_box(b"x")).encode()));
    let mut buffer = BytesMut::new();
    group.bench_function("encode 1 KiB into a reused buffer", |b| {
        b.iter(|| {
            buffer.clear();
            draft(black_box(&payload)).encode_into(&mut buffer);
        });
    });
    group.finish();
}

fn acknowledges(c: &mut Criterion) {
    let acknowledge = Acknowledge {
        message_type: MessageType::OutputStreamData,
        message_id: Uuid::from_u128(7),
        sequence: 123_456,
    };
    let raw = acknowledge.encode(CREATED);
    let payload = raw.slice(data_channel::message::HEADER_LEN..);
    let spaced = String::from_utf8_lossy(&payload).replace(',', ", ").into_bytes();
    let mut group = c.benchmark_group("acknowledge");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse", |b| b.iter(|| Acknowledge::parse(black_box(&payload))));
    group.bench_function("parse other JSON", |b| b.iter(|| Acknowledge::parse(black_box(&spaced))));
    group.bench_function("encode", |b| b.iter(|| black_box(acknowledge).encode(CREATED)));
    let id = Uuid::from_u128(8);
    group.bench_function("encode with an id", |b| {
        b.iter(|| black_box(acknowledge).encode_as(id, CREATED));
    });
    group.finish();
}

fn sequences(c: &mut Criterion) {
    let now = Duration::from_millis(1);
    let mut group = c.benchmark_group("sequence");
    group.throughput(Throughput::Elements(1));
    let mut outgoing = Outgoing::default();
    group.bench_function("send and acknowledge 1 byte", |b| {
        b.iter(|| {
            let sequence = outgoing.next_sequence();
            let sent = outgoing.send(draft(b"x"), now).is_ok();
            (sent, outgoing.acknowledged(sequence, now))
        });
    });
    let message = Message::parse(draft(b"x").encode()).ok();
    let mut deliver = Vec::with_capacity(1);
    group.bench_function("receive in order", |b| {
        b.iter_batched(
            || (Incoming::expecting(123_456), message.clone()),
            |(mut incoming, message)| {
                deliver.clear();
                message.map(|message| incoming.receive(message, &mut deliver))
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, messages, acknowledges, sequences);
criterion_main!(benches);

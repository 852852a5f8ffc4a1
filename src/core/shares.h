#pragma once
/* Which shards this node may claim now, and which it hands over. Pure, and the same on every node that sees the same rows, so that two of them
 * do not fight: what each shall have follows from what all have. Wrong or old rows cost a move too many, never more: who owns a shard is
 * decided by its row. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How much of the work a node takes, as its row says. */
enum share {
  SHARE_NONE, /* gives up what it owns: it leaves */
  SHARE_LAST, /* its clock is out of order: owns shards only while no node is in order */
  SHARE_KEEP, /* keeps what it owns and takes over nothing: it starts, or its commits are slow */
  SHARE_FULL,
  SHARE_MAX_
};

struct share_node {
  bool alive;
  bool drained; /* by an operator: as SHARE_NONE */
  enum share share;
};
struct share_shard {
  int32_t id;
  int32_t owner; /* index of the node that lives and owns it; -1: nobody does */
  bool lapsed;   /* nobody: its owner's lease has passed, it was not released */
  bool waited;   /* nobody, and whose turn it is has not come for long: whoever sees it takes it */
  bool going;    /* ours, and being handed over already */
};
struct share_view {
  const struct share_node *nodes;
  size_t node_count;
  const struct share_shard *shards; /* all of them, by id */
  size_t shard_count;
  size_t me;    /* index of this node */
  size_t moves; /* at most so many shards without an owner at a time, for the sake of balance */
};
/* Arrays of shard_count each, of the caller. */
struct share_plan {
  int32_t *claim, *release;
  size_t claims, releases;
  bool takers; /* others are there that take what this node gives up */
};
/* `ret`: the counts, the arrays filled. Nothing is kept or allocated. SHARE_NODES_MAX nodes are looked at. */
#define SHARE_NODES_MAX 64
void shares_plan(const struct share_view *v, struct share_plan *ret);

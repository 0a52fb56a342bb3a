#!/bin/sh
# start.sh edge|cloud: runs Mosquitto with its configuration and secrets in /tmp, which is memory.
# Mosquitto requires that only its own user can read them; a mounted secret is readable by all.
set -eu
umask 077
broker=$1

cat "/run/secrets/mqtt_${broker}_users" >/tmp/users
printf -- '-u health\n-P %s\n' "$(cat /run/secrets/mqtt_health)" >/tmp/mosquitto_sub
sed -e "s|home|${DDNN_SITE:-home}|g" \
    -e "s|mosquitto-cloud:1883|${DDNN_CLOUD_BROKER:-mosquitto-cloud:1883}|" \
    "/mosquitto/config/${broker}.conf" >/tmp/mosquitto.conf
if [ "$broker" = edge ]; then
    printf 'remote_password %s\n' "$(cat /run/secrets/mqtt_bridge)" >>/tmp/mosquitto.conf
fi
exec mosquitto -c /tmp/mosquitto.conf
